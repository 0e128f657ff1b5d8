/* Results, as text for people and JSON for bench/run. */
#include "bench/report.h"

#include <errno.h>
#include <stdlib.h>

#include "common/bug.h"

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

static double
median(const struct report *r, enum figure f)
{
    double v[OPT_REPEAT_MAX];
    for (uint32_t i = 0; i < r->n; i++)
        v[i] = figure(&r->sample[i], f);
    if (r->n == 0)
        return 0;
    qsort(v, r->n, sizeof v[0], by_value);
    return r->n % 2 ? v[r->n / 2] : (v[r->n / 2 - 1] + v[r->n / 2]) / 2;
}

static bool
healthy(const struct report *r)
{
    const struct load_counts *c = &r->count;
    return r->missing == 0 && c->twice == 0 && c->late == 0 && c->stale == 0 && c->foreign == 0 &&
        c->disconnects == 0 && c->refused == 0;
}

static void
json_head(FILE *f, const struct report *r)
{
    const struct opt *o = r->opt;
    static const char *const kinds[] = {"single", "batch", "send"};
    fprintf(f, "{\"scenario\":\"%s\",\"clients\":%u,\"payload\":%u,", o->scenario_name, o->clients,
        o->payload);
    if (o->scenario == SCEN_FLOOR)
        fprintf(f, "\"kind\":\"%s\",\"batch\":%u,", kinds[o->floor], o->floor_batch);
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
    fprintf(f,
        "\"published\":%llu,\"delivered\":%llu,\"lost\":%llu,\"doubled\":%llu,\"reordered\":%llu,"
        "\"stale\":%llu,\"foreign\":%llu,\"opened\":%llu,\"disconnects\":%llu,\"refused\":%llu,"
        "\"pings\":%llu,\"recvs\":%llu,\"ok\":%s",
        (unsigned long long)c->published, (unsigned long long)c->delivered,
        (unsigned long long)r->missing, (unsigned long long)c->twice, (unsigned long long)c->late,
        (unsigned long long)c->stale, (unsigned long long)c->foreign,
        (unsigned long long)c->opened, (unsigned long long)c->disconnects,
        (unsigned long long)c->refused, (unsigned long long)c->pings,
        (unsigned long long)c->recvs, healthy(r) ? "true" : "false");
}

static void
json_samples(FILE *f, const struct report *r)
{
    fputs("\"median\":{", f);
    for (int i = 0; i < F_N; i++)
        fprintf(f, "%s\"%s\":%.4f", i ? "," : "", figure_name[i], median(r, (enum figure)i));
    fputs("},\"repeats\":[", f);
    for (uint32_t k = 0; k < r->n; k++) {
        fputs(k ? ",{" : "{", f);
        for (int i = 0; i < F_N; i++)
            fprintf(f, "\"%s\":%.4f,", figure_name[i], figure(&r->sample[k], (enum figure)i));
        fprintf(f, "\"seconds\":%.4f,\"units\":%llu,\"softirq_us\":%.1f,\"recorded\":%llu}",
            r->sample[k].seconds, (unsigned long long)r->sample[k].units,
            (double)r->sample[k].softirq_ns / 1e3, (unsigned long long)r->sample[k].recorded);
    }
    fputs("],", f);
}

static double
idle_per_conn(uint64_t before, uint64_t after, uint64_t conns)
{
    return conns ? ((double)after - (double)before) / (double)conns : 0;
}

static void
json(FILE *f, const struct report *r)
{
    json_head(f, r);
    if (r->opt->scenario == SCEN_IDLE)
        fprintf(f,
            "\"connections\":%llu,\"channels\":%u,\"private_before\":%llu,\"private_after\":%llu,"
            "\"private_per_connection\":%.1f,\"pss_per_connection\":%.1f,",
            (unsigned long long)r->idle_conns, r->opt->channels,
            (unsigned long long)r->mem_before, (unsigned long long)r->mem_after,
            idle_per_conn(r->mem_before, r->mem_after, r->idle_conns),
            idle_per_conn(r->pss_before, r->pss_after, r->idle_conns));
    else
        json_samples(f, r);
    json_counts(f, r);
    fputs("}\n", f);
}

static void
text_idle(FILE *f, const struct report *r)
{
    fprintf(f, "  connections       %llu\n", (unsigned long long)r->idle_conns);
    fprintf(f, "  private memory    %.1f KiB before, %.1f KiB after: %.0f bytes per connection\n",
        (double)r->mem_before / 1024, (double)r->mem_after / 1024,
        idle_per_conn(r->mem_before, r->mem_after, r->idle_conns));
    fprintf(f, "  Pss               %.0f bytes per connection\n",
        idle_per_conn(r->pss_before, r->pss_after, r->idle_conns));
}

static void
text_samples(FILE *f, const struct report *r)
{
    const char *unit = r->opt->scenario == SCEN_CONNECT ? "connections" : "deliveries";
    fprintf(f, "  %s/s      %.0f\n", unit, median(r, F_RATE));
    if (r->has_cpu)
        fprintf(f, "  server            %.3f us of CPU each, %.2f cores\n", median(r, F_CPU),
            median(r, F_SERVER));
    fprintf(f, "  load generator    %.2f cores\n", median(r, F_LOAD));
    fprintf(f, "  latency, us       p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n",
        median(r, F_P50), median(r, F_P90), median(r, F_P99), median(r, F_P999), median(r, F_MAX));
    fputs("  each repeat      ", f);
    for (uint32_t i = 0; i < r->n; i++)
        fprintf(f, " %.0f/s %.3fus", figure(&r->sample[i], F_RATE), figure(&r->sample[i], F_CPU));
    fputc('\n', f);
}

static void
text(FILE *f, const struct report *r)
{
    const struct opt *o = r->opt;
    const struct load_counts *c = &r->count;
    fprintf(f, "%s: %u clients, payload %u, ", o->scenario_name, o->clients, o->payload);
    if (o->scenario == SCEN_IDLE)
        fprintf(f, "%u channels\n", o->channels);
    else if (o->scenario == SCEN_CONNECT)
        fprintf(f, "%u at a time\n", o->concurrency);
    else if (o->rate > 0)
        fprintf(f, "%.0f deliveries/s by timetable\n", o->rate);
    else
        fprintf(f, "full speed, %u in flight\n", o->in_flight);
    if (o->scenario == SCEN_IDLE)
        text_idle(f, r);
    else
        text_samples(f, r);
    fprintf(f, "  published %llu, delivered %llu, lost %llu, doubled %llu, reordered %llu, "
               "foreign %llu, disconnects %llu, refused %llu\n",
        (unsigned long long)c->published, (unsigned long long)c->delivered,
        (unsigned long long)r->missing, (unsigned long long)(c->twice + c->stale),
        (unsigned long long)c->late, (unsigned long long)c->foreign,
        (unsigned long long)c->disconnects, (unsigned long long)c->refused);
}

bool
report_print(const struct report *r)
{
    const char *to = r->opt->json;
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
