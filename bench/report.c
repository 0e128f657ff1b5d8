/* Results, as text for people and JSON for bench/run. */
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/bug.h"

const double report_quantile[REPORT_QUANTILES] = {0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
    0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1};

void
report_latency(struct sample *s, const struct hist *h)
{
    s->recorded = h->n;
    s->p50 = (double)hist_quantile(h, 0.5) / 1e3;
    s->p90 = (double)hist_quantile(h, 0.9) / 1e3;
    s->p99 = (double)hist_quantile(h, 0.99) / 1e3;
    s->p999 = (double)hist_quantile(h, 0.999) / 1e3;
    s->max = (double)h->max / 1e3;
    s->mean = hist_mean(h) / 1e3;
    for (uint32_t i = 0; i < REPORT_QUANTILES; i++)
        s->at[i] = (double)hist_quantile(h, report_quantile[i]) / 1e3;
}

/* The figures of a sample that are reported, each with its median over the repeats. */
enum figure { F_RATE, F_CPU, F_SERVER, F_LOAD, F_P50, F_P90, F_P99, F_P999, F_MAX, F_MEAN, F_N };
static const char *const figure_name[F_N] = {"per_second", "cpu_us_per_unit", "server_core",
    "load_core", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "mean_us"};

static double
figure(const struct sample *s, enum figure f)
{
    switch (f) {
    case F_RATE: return (double)s->units / s->seconds;
    case F_CPU:
        return s->units ? (double)(s->cpu_ns + s->softirq_ns) / 1e3 / (double)s->units : 0;
    case F_SERVER: return (double)(s->cpu_ns + s->softirq_ns) / 1e9 / s->seconds;
    case F_LOAD: return (double)s->load_cpu_ns / 1e9 / s->seconds;
    case F_P50: return s->p50;
    case F_P90: return s->p90;
    case F_P99: return s->p99;
    case F_P999: return s->p999;
    case F_MAX: return s->max;
    case F_MEAN: return s->mean;
    case F_N: break;
    }
    return 0;
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double
report_median(double *v, uint32_t n)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof v[0], by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

double
report_half_width(const double *v, uint32_t n)
{
    /* Two-sided 95 % points by degrees of freedom; beyond the last the normal one, a little above it. */
    static const double t95[] = {0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    double sum = 0, squares = 0;
    if (n < 2)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        sum += v[i];
    for (uint32_t i = 0; i < n; i++)
        squares += (v[i] - sum / n) * (v[i] - sum / n);
    return (n - 1 < ARRAY_LEN(t95) ? t95[n - 1] : 2.0) * sqrt(squares / (n - 1) / n);
}

static double
half_width(const struct sample_set *set, enum figure f)
{
    double v[OPT_REPEAT_MAX];
    for (uint32_t i = 0; i < set->n; i++)
        v[i] = figure(&set->sample[i], f);
    return report_half_width(v, set->n);
}

static double
median(const struct sample_set *set, enum figure f)
{
    double v[OPT_REPEAT_MAX];
    for (uint32_t i = 0; i < set->n; i++)
        v[i] = figure(&set->sample[i], f);
    return report_median(v, set->n);
}

/* Median of what each window of the storm was of the quiet one before it. */
static double
storm_ratio(const struct report *r, enum figure f)
{
    double v[OPT_REPEAT_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->during.n; i++)
        if (figure(&r->set.sample[i], f) > 0)
            v[n++] = figure(&r->during.sample[i], f) / figure(&r->set.sample[i], f);
    return report_median(v, n);
}

static double
storm_rate(const struct report *r)
{
    double v[OPT_REPEAT_MAX];
    memcpy(v, r->storm_per_second, sizeof v);
    return report_median(v, r->during.n);
}

static bool
healthy(const struct report *r)
{
    const struct load_counts *c = &r->count;
    return r->missing == 0 && c->twice == 0 && c->late == 0 && c->stale == 0 && c->foreign == 0 &&
        c->disconnects == 0 && c->refused == 0;
}

uint64_t
report_most(const struct report *r)
{
    uint64_t most = r->mem_before;
    for (uint32_t i = 0; i < r->readings; i++)
        most = MAX(most, r->reading[i].private_bytes);
    return most;
}

static void
json_head(FILE *f, const struct report *r)
{
    const struct opt *o = r->opt;
    static const char *const kinds[] = {[FLOOR_SINGLE] = "single", [FLOOR_BATCH] = "batch", [FLOOR_SEND] = "send", [FLOOR_RELAY] = "relay"};
    fprintf(f, "{\"scenario\":\"%s\",\"clients\":%u,\"payload\":%u,\"payload_as\":\"%s\",\"tls\":%s,\"deflate\":%s,",
        o->scenario_name, o->clients, o->payload, o->kind == FRAME_JSON ? "json" : "text",
        o->url.tls ? "true" : "false", o->deflate ? "true" : "false");
    if (r->tls_terms[0] != 0)
        fprintf(f, "\"tls_terms\":\"%s\",", r->tls_terms);
    if (o->scenario == SCEN_FLOOR)
        fprintf(f, "\"kind\":\"%s\",\"batch\":%u,", kinds[o->floor], o->floor_batch);
    if (r->agents > 0)
        fprintf(f, "\"agents\":%u,", r->agents);
    if (o->rate > 0)
        fprintf(f, "\"rate\":%.3f,", o->rate);
    else
        fprintf(f, "\"in_flight\":%u,", o->in_flight);
    fprintf(f, "\"duration_s\":%.3f,\"server_processes\":%u,\"cpu_known\":%s,",
        (double)o->duration_ns / 1e9, r->server_processes, r->has_cpu ? "true" : "false");
}

static void
json_counts(FILE *f, const struct report *r)
{
    const struct load_counts *c = &r->count;
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"published", c->published}, {"delivered", c->delivered}, {"lost", r->missing},
        {"doubled", c->twice}, {"reordered", c->late}, {"stale", c->stale}, {"foreign", c->foreign},
        {"opened", c->opened}, {"disconnects", c->disconnects}, {"refused", c->refused}, {"pings", c->pings},
        {"recvs", c->recvs}, {"wire_bytes", c->wire_bytes}, {"packed", c->packed}, {"secured", c->secured},
        {"resumed", c->resumed}, {"churned", c->churned}, {"no_buffers", c->no_buffers}};
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        fprintf(f, "\"%s\":%" PRIu64 ",", rows[i].name, rows[i].value);
    fprintf(f, "\"ok\":%s", healthy(r) ? "true" : "false");
}

static void
json_samples(FILE *f, const struct sample_set *set)
{
    fputs("\"quantiles\":[", f);
    for (uint32_t i = 0; i < REPORT_QUANTILES; i++)
        fprintf(f, "%s%g", i ? "," : "", report_quantile[i]);
    fputs("],\"median\":{", f);
    for (int i = 0; i < F_N; i++)
        fprintf(f, "%s\"%s\":%.4f", i ? "," : "", figure_name[i], median(set, (enum figure)i));
    fputs("},\"half_width95\":{", f);
    for (int i = 0; i < F_N; i++)
        fprintf(f, "%s\"%s\":%.4f", i ? "," : "", figure_name[i], half_width(set, (enum figure)i));
    fputs("},\"repeats\":[", f);
    for (uint32_t k = 0; k < set->n; k++) {
        const struct sample *s = &set->sample[k];
        fputs(k ? ",{" : "{", f);
        for (int i = 0; i < F_N; i++)
            fprintf(f, "\"%s\":%.4f,", figure_name[i], figure(s, (enum figure)i));
        fprintf(f, "\"seconds\":%.4f,\"units\":%" PRIu64 ",\"softirq_us\":%.1f,\"recorded\":%" PRIu64 ",\"at_us\":[", s->seconds,
            s->units, (double)s->softirq_ns / 1e3, s->recorded);
        for (uint32_t i = 0; i < REPORT_QUANTILES; i++)
            fprintf(f, "%s%.1f", i ? "," : "", s->at[i]);
        fputs("]}", f);
    }
    fputs("]", f);
}

static double
per_conn(uint64_t before, uint64_t after, uint64_t conns)
{
    return conns ? ((double)after - (double)before) / (double)conns : 0;
}

static void
json_idle(FILE *f, const struct report *r)
{
    fprintf(f,
        "\"connections\":%" PRIu64 ",\"channels\":%u,\"private_before\":%" PRIu64 ",\"private_after\":%" PRIu64 ","
        "\"private_per_connection\":%.1f,\"pss_per_connection\":%.1f,",
        r->idle_conns, r->opt->channels, r->mem_before, r->mem_after,
        per_conn(r->mem_before, r->mem_after, r->idle_conns), per_conn(r->pss_before, r->pss_after, r->idle_conns));
}

static void
json_storm(FILE *f, const struct report *r)
{
    static const char *const depths[] = {"hello", "upgrade", "ready"};
    json_samples(f, &r->set);
    fputs(",\"during\":{", f);
    json_samples(f, &r->during);
    fprintf(f,
        "},\"storm\":{\"depth\":\"%s\",\"tls\":%s,\"tls_terms\":\"%s\",\"at_a_time\":%u,\"per_second\":%.1f,"
        "\"opened\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"secured\":%" PRIu64 ",\"resumed\":%" PRIu64 ",\"p50_us\":%.1f,\"p99_us\":%.1f},"
        "\"p50_ratio\":%.4f,\"p99_ratio\":%.4f,",
        depths[r->opt->depth], r->opt->storm_url.tls ? "true" : "false", r->storm_terms, r->opt->storm,
        storm_rate(r), r->storm_opened, r->storm_refused, r->storm_secured, r->storm_resumed,
        r->storm_p50, r->storm_p99, storm_ratio(r, F_P50), storm_ratio(r, F_P99));
}

static void
json_slow(FILE *f, const struct report *r)
{
    json_samples(f, &r->set);
    fprintf(f,
        ",\"slow\":%u,\"private_before\":%" PRIu64 ",\"private_most\":%" PRIu64 ",\"private_after\":%" PRIu64 ",\"slow_ended\":%u,"
        "\"slow_level\":%u,\"slow_missed\":%" PRIu64 ",\"slow_told\":%" PRIu64 ",\"slow_even\":%u,\"notices\":%" PRIu64
        ",\"readings\":[",
        r->opt->slow, r->mem_before, report_most(r), r->mem_after, r->slow.ended, r->slow.level,
        r->slow.missed, r->slow.told, r->slow.even, r->count.notices);
    for (uint32_t i = 0; i < r->readings; i++)
        fprintf(f, "%s[%.3f,%" PRIu64 ",%u]", i ? "," : "", r->reading[i].seconds, r->reading[i].private_bytes,
            r->reading[i].open);
    fputs("],", f);
}

/* Seconds of all windows. */
static double
measured(const struct report *r)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->set.n; i++)
        sum += r->set.sample[i].seconds;
    for (uint32_t i = 0; i < r->during.n; i++)
        sum += r->during.sample[i].seconds;
    return sum;
}

/* Each process of the server: what it used in all windows, and its memory in the end. */
static void
json_processes(FILE *f, const struct report *r)
{
    double seconds = measured(r);
    fputs("\"processes\":[", f);
    for (uint32_t i = 0; i < r->server_processes; i++) {
        const struct proc_use *u = &r->use[i];
        fprintf(f, "%s{\"pid\":%d,\"name\":\"%s\",\"cpu_us\":%.1f,\"cores\":%.4f,\"private_bytes\":%" PRIu64 "}", i ? "," : "",
            (int)u->pid, u->name, (double)u->cpu_ns / 1e3, seconds > 0 ? (double)u->cpu_ns / 1e9 / seconds : 0, u->private_bytes);
    }
    fputs("],", f);
}

static void
text_processes(FILE *f, const struct report *r)
{
    double seconds = measured(r);
    for (uint32_t i = 0; i < r->server_processes; i++) {
        const struct proc_use *u = &r->use[i];
        fprintf(f, "  %-17s %.2f cores, %.1f KiB private (process %d)\n", u->name,
            seconds > 0 ? (double)u->cpu_ns / 1e9 / seconds : 0, (double)u->private_bytes / 1024, (int)u->pid);
    }
}

static void
json(FILE *f, const struct report *r)
{
    json_head(f, r);
    switch (r->opt->scenario) {
    case SCEN_IDLE: json_idle(f, r); break;
    case SCEN_STORM: json_storm(f, r); break;
    case SCEN_SLOW: json_slow(f, r); break;
    case SCEN_PACK:
        fprintf(f, "\"from_bytes\":%u,\"to_bytes\":%u,\"pack_us\":%.3f,\"unpack_us\":%.3f,", r->pack_from, r->pack_to,
            r->pack_us, r->unpack_us);
        break;
    default: json_samples(f, &r->set); fputs(",", f);
    }
    json_processes(f, r);
    json_counts(f, r);
    fputs("}\n", f);
}

static void
text_idle(FILE *f, const struct report *r)
{
    fprintf(f, "  connections       %" PRIu64 "\n", r->idle_conns);
    fprintf(f, "  private memory    %.1f KiB before, %.1f KiB after: %.0f bytes per connection\n",
        (double)r->mem_before / 1024, (double)r->mem_after / 1024,
        per_conn(r->mem_before, r->mem_after, r->idle_conns));
    fprintf(f, "  Pss               %.0f bytes per connection\n",
        per_conn(r->pss_before, r->pss_after, r->idle_conns));
}

static void
text_latency(FILE *f, const char *what, const struct sample_set *set)
{
    fprintf(f, "  %-17s p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n", what, median(set, F_P50),
        median(set, F_P90), median(set, F_P99), median(set, F_P999), median(set, F_MAX));
}

/* " +- half the 95 % interval", where there are repeats to tell. */
static const char *
spread(const struct sample_set *set, enum figure f, int digits, char to[static 48])
{
    to[0] = 0;
    if (set->n > 1)
        snprintf(to, 48, " +- %.*f", digits, half_width(set, f));
    return to;
}

static void
text_samples(FILE *f, const struct report *r)
{
    char about[48];
    const struct sample_set *set = &r->set;
    enum scenario scen = r->opt->scenario;
    const char *unit = scen == SCEN_CONNECT || scen == SCEN_RECONNECT ? "connections" :
        scen == SCEN_CHURN                                            ? "answers" :
                                                                        "deliveries";
    fprintf(f, "  %s/s      %.0f%s\n", unit, median(set, F_RATE), spread(set, F_RATE, 0, about));
    if (r->has_cpu)
        fprintf(f, "  server            %.3f%s us of CPU each, %.2f cores\n", median(set, F_CPU),
            spread(set, F_CPU, 3, about), median(set, F_SERVER));
    fprintf(f, "  load generator    %.2f cores\n", median(set, F_LOAD));
    text_latency(f, "latency, us", set);
    fputs("  each repeat      ", f);
    for (uint32_t i = 0; i < set->n; i++)
        fprintf(f, " %.0f/s %.3fus", figure(&set->sample[i], F_RATE), figure(&set->sample[i], F_CPU));
    fputc('\n', f);
}

static void
text_storm(FILE *f, const struct report *r)
{
    text_samples(f, r);
    text_latency(f, "in the storm, us", &r->during);
    fprintf(f, "  p99 in the storm  %.2f x the quiet one; p50 %.2f x; server %.2f cores\n", storm_ratio(r, F_P99),
        storm_ratio(r, F_P50), median(&r->during, F_SERVER));
    fprintf(f, "  the storm         %.0f connections/s, p50 %.1f, p99 %.1f us, %" PRIu64 " refused%s%s\n", storm_rate(r),
        r->storm_p50, r->storm_p99, r->storm_refused, r->storm_terms[0] ? ", " : "", r->storm_terms);
}

static void
text_slow(FILE *f, const struct report *r)
{
    text_samples(f, r);
    fprintf(f, "  private memory    %.1f KiB before, %.1f most, %.1f in the end: %.0f bytes per slow reader at most\n",
        (double)r->mem_before / 1024, (double)report_most(r) / 1024, (double)r->mem_after / 1024,
        per_conn(r->mem_before, report_most(r), r->opt->slow));
    fprintf(f, "  %u slow readers: %u ended by the server, %u level when they read again, %" PRIu64 " messages missed, "
               "%" PRIu64 " notices that told of %" PRIu64 "; for %u it adds up\n",
        r->opt->slow, r->slow.ended, r->slow.level, r->slow.missed, r->count.notices, r->slow.told, r->slow.even);
}

static void
text_head(FILE *f, const struct report *r)
{
    const struct opt *o = r->opt;
    fprintf(f, "%s: %u clients, payload %u%s%s%s, ", o->scenario_name, o->clients, o->payload,
        o->kind == FRAME_JSON ? " (JSON)" : "", o->url.tls ? ", TLS" : "", o->deflate ? ", deflate" : "");
    if (o->scenario == SCEN_IDLE)
        fprintf(f, "%u channels\n", o->channels);
    else if (o->scenario == SCEN_CONNECT)
        fprintf(f, "%u at a time\n", o->concurrency);
    else if (o->rate > 0)
        fprintf(f, "%.0f deliveries/s by %s\n", o->rate, o->replay != NULL ? "the recording, payloads as it has them" : "timetable");
    else
        fprintf(f, "full speed, %u in flight\n", o->in_flight);
    if (r->tls_terms[0] != 0)
        fprintf(f, "  %s\n", r->tls_terms);
}

static void
text(FILE *f, const struct report *r)
{
    const struct load_counts *c = &r->count;
    text_head(f, r);
    switch (r->opt->scenario) {
    case SCEN_IDLE: text_idle(f, r); break;
    case SCEN_STORM: text_storm(f, r); break;
    case SCEN_SLOW: text_slow(f, r); break;
    case SCEN_PACK:
        fprintf(f, "  %u bytes become %u: %.2f us to pack, %.2f us to unpack\n", r->pack_from, r->pack_to, r->pack_us,
            r->unpack_us);
        return;
    default: text_samples(f, r);
    }
    text_processes(f, r);
    fprintf(f, "  published %" PRIu64 ", delivered %" PRIu64 ", lost %" PRIu64 ", doubled %" PRIu64 ", reordered %" PRIu64 ", "
               "foreign %" PRIu64 ", disconnects %" PRIu64 ", refused %" PRIu64 "\n",
        c->published, c->delivered, r->missing, c->twice + c->stale, c->late,
        c->foreign, c->disconnects, c->refused);
}

/* A row for each window: what was asked, what came. */
static void
csv(const struct report *r)
{
    const struct opt *o = r->opt;
    FILE *f = fopen(o->csv, "ae");
    if (f == NULL)
        die("--csv=%s: %s", o->csv, strerror(errno));
    if (ftell(f) == 0 && fseek(f, 0, SEEK_END) == 0 && ftell(f) == 0) {
        fputs("scenario,clients,payload,tls,deflate,rate,in_flight,window,seconds,units", f);
        for (int i = 0; i < F_N; i++)
            fprintf(f, ",%s", figure_name[i]);
        fputs(",ok\n", f);
    }
    for (uint32_t k = 0; k < r->set.n; k++) {
        const struct sample *s = &r->set.sample[k];
        fprintf(f, "%s,%u,%u,%d,%d,%.3f,%u,%u,%.4f,%" PRIu64, o->scenario_name, o->clients, o->payload, o->url.tls,
            o->deflate, o->rate, o->rate > 0 ? 0 : o->in_flight, k, s->seconds, s->units);
        for (int i = 0; i < F_N; i++)
            fprintf(f, ",%.4f", figure(s, (enum figure)i));
        fprintf(f, ",%d\n", healthy(r));
    }
    if (fclose(f) != 0)
        die("--csv=%s: %s", o->csv, strerror(errno));
}

bool
report_print(const struct report *r)
{
    const char *to = r->opt->json;
    if (r->opt->csv != NULL)
        csv(r);
    if (to == NULL || strcmp(to, "-") != 0)
        text(stdout, r);
    if (to != NULL && strcmp(to, "-") == 0) {
        json(stdout, r);
    } else if (to != NULL) {
        FILE *f = fopen(to, "we");
        if (f == NULL)
            die("--json=%s: %s", to, strerror(errno));
        json(f, r);
        if (fclose(f) != 0)
            die("--json=%s: %s", to, strerror(errno));
    }
    return healthy(r);
}
