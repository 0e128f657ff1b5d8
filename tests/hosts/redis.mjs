// Real redis-servers in the namespace "servers", alone, with sentinels or as a cluster, and ways to hurt them.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync, chmodSync } from 'node:fs';
import { join } from 'node:path';
import { root, until } from '../lib/server.mjs';

/** One process: {name, address, port, config: {directive: value or [values]}}. */
export class Redis {
    constructor(net, name, address, { config = {}, sentinel = false, login = [], tls = null } = {}) {
        Object.assign(this, { net, name, address, port: sentinel ? 26379 : 6379, config, sentinel, login, tls });
        this.dir = join(net.dir, name);
    }
    get at() { return `${this.address}:${this.port}`; }
    write() {
        mkdirSync(this.dir, { recursive: true });
        const all = { bind: this.address, [this.tls ? 'tls-port' : 'port']: this.port, ...(this.tls ? { port: 0 } : {}), dir: this.dir, daemonize: 'no', 'protected-mode': 'no', 'bind-source-addr': this.address, ...this.config };
        if (!this.sentinel) Object.assign(all, { save: '""', appendonly: 'no', 'repl-diskless-sync-delay': 0, 'repl-ping-replica-period': 1 });
        const lines = Object.entries(all).flatMap(([k, v]) => (Array.isArray(v) ? v : [v]).map(x => `${k} ${x}`));
        writeFileSync(join(this.dir, 'conf'), lines.join('\n') + '\n');
        this.written = true;
    }
    /** Again after a kill it starts empty: nothing is saved. */
    async start() {
        if (!this.written) this.write();
        this.child = this.net.spawn('servers', 'redis-server', [join(this.dir, 'conf'), ...(this.sentinel ? ['--sentinel'] : [])]);
        let said;
        this.log = '';
        this.child.stdout.on('data', d => { this.log = (this.log + d).slice(-20000); });
        await until(async () => {
            if (this.child.over) throw new Error(`${this.name} ended: ${this.log}${this.child.said}`);
            return (said = await this.cli('ping').catch(e => e.message)).startsWith('PONG');
        }, () => `redis ${this.name}: ${said}\n${this.log}`);
        return this;
    }
    kill() { this.child.kill('SIGKILL'); return this.child.ended; }
    stop() { this.child.kill('SIGSTOP'); }
    go() { this.child.kill('SIGCONT'); }
    /** What redis-cli prints. */
    async cli(...args) {
        const way = this.tls ? ['--tls', '--cacert', this.tls.ca] : [];
        const out = await this.net.run('servers', 'redis-cli', ['-h', this.address, '-p', this.port, ...way, ...this.login, ...args].map(String));
        return out.trim();
    }
    async info(field) { return new RegExp(`^${field}:(.*?)\r?$`, 'm').exec(await this.cli('info'))?.[1]; }
}

/** One server with TLS and a user who may do no more than the brokers need. */
export async function guarded(net, address = '10.77.0.100') {
    const keys = join(net.dir, 'keys');
    mkdirSync(keys);
    execFileSync('python3', ['-c', `import sys; sys.path.insert(0, sys.argv[1]); import certs
ca = certs.make(sys.argv[2], "ca", "test authority", ())
certs.make(sys.argv[2], "redis", "redis", ("IP:" + sys.argv[3],), issuer=ca)`, join(root, 'tests/lib'), keys, address]);
    const password = join(keys, 'password'), acl = join(keys, 'users.acl');
    writeFileSync(password, 'what-the-hosts-know\n');
    chmodSync(keys, 0o755);
    chmodSync(password, 0o644);
    chmodSync(join(keys, 'ca.pem'), 0o644);
    writeFileSync(acl, 'user default off\nuser admin on >secret ~* &* +@all\n' +
        'user ringcast on >what-the-hosts-know resetkeys resetchannels &ringcast* -@all +publish +subscribe +unsubscribe +ping +hello +auth +client|setname\n');
    const server = new Redis(net, 'guarded', address, {
        tls: { ca: join(keys, 'ca.pem') }, login: ['--user', 'admin', '--pass', 'secret', '--no-auth-warning'],
        config: {
            'tls-cert-file': join(keys, 'redis.pem'), 'tls-key-file': join(keys, 'redis.key'), 'tls-ca-cert-file': join(keys, 'ca.pem'),
            'tls-auth-clients': 'no', aclfile: acl,
        },
    });
    await server.start();
    return { servers: [server], settings: { 'redis.url': `rediss://${server.at}`, 'redis.user': 'ringcast', 'redis.password_file': password, 'redis.tls_ca': join(keys, 'ca.pem') } };
}

/** Servers that know nothing of each other. */
export async function plain(net, count = 1) {
    const servers = Array.from({ length: count }, (_, i) => new Redis(net, `plain${i}`, `10.77.0.${100 + i}`));
    for (const [i, s] of servers.entries()) if (i > 0) await net.address('servers', s.address);
    await Promise.all(servers.map(s => s.start()));
    return { servers, settings: { 'redis.url': servers.map(s => `redis://${s.at}`).join(',') } };
}

/** One server, and beside the way to it another that is as slow as `slow(bytes a second)` says; 0: as quick as the first. */
export async function throttled(net) {
    const one = await plain(net), [server] = one.servers, at = '10.77.0.120:6379';
    await net.address('servers', '10.77.0.120');
    const relay = net.spawn('servers', 'python3', [join(root, 'tests/hosts/throttle.py'), at, server.at]);
    let said = '';
    relay.stdout.on('data', d => { said += d; });
    await until(() => said.includes('ready'), () => `the slow way: ${relay.said}`);
    const slow = async rate => { said = ''; relay.stdin.write(`${rate}\n`); await until(() => said.includes(`${rate}\n`), 'the slow way to have heard'); };
    return { ...one, slow, slowUrl: `redis://${at}` };
}

/** A primary, two replicas and three sentinels. */
export async function watched(net) {
    const servers = [0, 1, 2].map(i => new Redis(net, `node${i}`, `10.77.0.${100 + i}`, i ? { config: { replicaof: '10.77.0.100 6379' } } : {}));
    const sentinels = [0, 1, 2].map(i => new Redis(net, `sentinel${i}`, `10.77.0.${110 + i}`, { sentinel: true, config: {
        sentinel: ['monitor main 10.77.0.100 6379 2', 'down-after-milliseconds main 1000', 'failover-timeout main 3000', 'parallel-syncs main 2'] } }));
    for (const s of [...servers.slice(1), ...sentinels]) await net.address('servers', s.address);
    await Promise.all(servers.map(s => s.start()));
    await until(async () => (await servers[0].info('connected_slaves')) === '2', 'the replicas', 10000);
    await Promise.all(sentinels.map(s => s.start()));
    await until(async () => (await Promise.all(sentinels.map(s => s.cli('sentinel', 'ckquorum', 'main')))).every(x => x.startsWith('OK 3')) &&
        (await Promise.all(sentinels.map(s => s.cli('sentinel', 'replicas', 'main')))).every(x => (x.match(/10\.77\.0\.10[12]:6379/g) ?? []).length >= 2), 'the sentinels to know each other', 20000, 100);
    const primary = async () => { const at = (await sentinels[2].cli('sentinel', 'get-master-addr-by-name', 'main')).split('\n')[0]; return servers.find(s => s.address === at); };
    return { servers, sentinels, primary, settings: { 'redis.mode': 'sentinel', 'redis.sentinel_name': 'main', 'redis.url': sentinels.map(s => `redis://${s.at}`).join(',') } };
}

/** Three primaries with a replica each. */
export async function clustered(net) {
    const servers = [0, 1, 2, 3, 4, 5].map(i => new Redis(net, `node${i}`, `10.77.0.${100 + i}`, { config: {
        'cluster-enabled': 'yes', 'cluster-node-timeout': 1500, 'cluster-replica-validity-factor': 0, 'cluster-config-file': 'nodes.conf' } }));
    for (const s of servers.slice(1)) await net.address('servers', s.address);
    await Promise.all(servers.map(s => s.start()));
    await net.run('servers', 'redis-cli', ['--cluster', 'create', ...servers.map(s => s.at), '--cluster-replicas', '1', '--cluster-yes'], { ms: 60000 });
    const nodes = async (by = servers) => {
        for (const s of by.filter(x => !x.child.over)) {
            const text = await s.cli('cluster', 'nodes').catch(() => '');
            if (text) return text.split('\n').map(l => { const w = l.split(' '); return { id: w[0], address: w[1].split(':')[0], flags: w[2], of: w[3], slots: w.slice(8) }; });
        }
        throw new Error('no node answers');
    };
    const whole = () => until(async () => {
        for (const s of servers) {
            if (s.child.over) continue;
            if (!(await s.cli('cluster', 'info')).includes('cluster_state:ok')) return false;
            if ((await nodes([s])).some(n => /handshake/.test(n.flags))) return false;
        }
        return true;
    }, 'the cluster to be whole', 20000, 50);
    await whole();
    await until(async () => (await Promise.all(servers.map(s => s.cli('cluster', 'nodes')))).every(t => (t.match(/slave/g) ?? []).length === 3), 'all to know the replicas', 20000, 100);
    const find = n => servers.find(s => s.address === n.address);
    return { servers, nodes, whole, find, settings: { 'redis.url': servers.slice(0, 3).map(s => `redis://${s.at}`).join(','), 'redis.mode': 'cluster' } };
}
