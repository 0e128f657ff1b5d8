"""Certificates for tests, made by openssl(1): P-256, good for two days, for localhost and 127.0.0.1."""
import os
import ssl
import subprocess


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make(directory, name="server", subject="localhost", names=("DNS:localhost", "IP:127.0.0.1"), issuer=None, usage=None):
    """Writes NAME.pem and NAME.key, signed by itself or by the issuer, which is the path of another without
    its ending. Returns the path without the ending."""
    path = os.path.join(directory, name)
    extensions = ["basicConstraints=critical,CA:" + ("TRUE" if issuer is None else "FALSE")]
    if names:
        extensions.append("subjectAltName=" + ",".join(names))
    if usage:
        extensions.append("extendedKeyUsage=" + usage)
    common = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path + ".key",
              "-subj", "/CN=" + subject]
    if issuer is None:
        openssl(*common, "-x509", "-days", "2", "-out", path + ".pem",
                *[a for e in extensions for a in ("-addext", e)])
    else:
        with open(path + ".ext", "w") as f:
            f.write("\n".join(extensions) + "\n")
        openssl(*common, "-out", path + ".csr")
        openssl("x509", "-req", "-in", path + ".csr", "-CA", issuer + ".pem", "-CAkey", issuer + ".key", "-CAcreateserial",
                "-days", "2", "-extfile", path + ".ext", "-out", path + ".pem")
    return path


def client(ca, certificate=None, **options):
    """What a client trusts, and shows."""
    context = ssl.create_default_context(cafile=ca + ".pem" if ca else None)
    if not ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate + ".pem", certificate + ".key")
    for name, value in options.items():
        setattr(context, name, value)
    return context
