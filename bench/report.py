"""Samples -> medians, ratios, spread; tables in Markdown, JSON, a chart."""
import statistics


def median_of(samples):
    return statistics.median(samples) if samples else None


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Results:
    """samples[job][filesystem]: one figure per round, None where it failed."""

    def __init__(self, filesystems):
        self.filesystems = filesystems
        self.samples, self.units, self.cpu = {}, {}, {}

    def add(self, job, unit, filesystem, value):
        self.units[job] = unit
        self.samples.setdefault(job, {}).setdefault(filesystem.name, []).append(value)

    def add_cpu(self, job, filesystem, microseconds):
        self.cpu.setdefault(job, {}).setdefault(filesystem.name, []).append(microseconds)

    def values(self, job, name):
        return [value for value in self.samples[job].get(name, []) if value is not None]

    def median(self, job, name):
        return median_of(self.values(job, name))

    def ratio(self, job, ours, other):
        """(median, least, greatest) over the rounds that both did; None where there is none."""
        pairs = zip(self.samples[job].get(ours, []), self.samples[job].get(other, []))
        ratios = [a / b for a, b in pairs if a is not None and b]
        return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    def greatest(self, job, name):
        """The round that was disturbed least: neighbours only ever slow down."""
        return max(self.values(job, name), default=None)

    def best_peer(self, job):
        peers = [(self.median(job, fs.name), fs.name) for fs in self.filesystems if fs.role == "peer" and self.median(job, fs.name) is not None]
        return max(peers)[1] if peers else None

    def names(self, *roles):
        return [fs.name for fs in self.filesystems if fs.role in roles]


def row(cells):
    return "| " + " | ".join(cells) + " |"


def head(cells):
    return [row(cells), row(["---"] * len(cells))]


def spread_percent(values):
    middle = median_of(values)
    return f" ±{50 * (max(values) - min(values)) / middle:.0f}%" if len(values) > 1 and middle else ""


def medians_table(results):
    names = [fs.name for fs in results.filesystems]
    lines = head(["job"] + names)
    for job in results.samples:
        unit = " (MiB/s)" if results.units[job] == "MiB/s" else ""
        cells = [number(results.median(job, name)) + spread_percent(results.values(job, name) or [0]) for name in names]
        lines.append(row([job + unit] + cells))
    return "\n".join(lines)


def greatest_table(results):
    names = [fs.name for fs in results.filesystems]
    lines = head(["job"] + names)
    for job in results.samples:
        unit = " (MiB/s)" if results.units[job] == "MiB/s" else ""
        lines.append(row([job + unit] + [number(results.greatest(job, name)) for name in names]))
    return "\n".join(lines)


def ratio_cell(ratio):
    return f"{ratio[0]:.2f} [{ratio[1]:.2f}-{ratio[2]:.2f}]" if ratio else "-"


def ratio_table(results, ours):
    others = results.names("peer", "other")
    lines = head(["job", "best peer", f"{ours} / best"] + others)
    for job in results.samples:
        best = results.best_peer(job)
        ratios = [results.ratio(job, ours, name) for name in others]
        lines.append(row([job, best or "-", ratio_cell(results.ratio(job, ours, best)) if best else "-"] +
                         [f"{ratio[0]:.2f}" if ratio else "-" for ratio in ratios]))
    return "\n".join(lines)


def cpu_table(results):
    names = sorted({name for rows in results.cpu.values() for name in rows})
    lines = head(["job"] + names)
    for job, rows in results.cpu.items():
        lines.append(row([job] + [number(median_of(rows[name])) if name in rows else "-" for name in names]))
    return "\n".join(lines)


def text(results):
    parts = ["Medians over the rounds, ± half of the range:", medians_table(results),
             "The best round of each, which neighbours disturbed least:", greatest_table(results)]
    for ours in results.names("ours"):
        if results.names("peer", "other"):
            parts += [f"{ours} as a ratio to each, round by round; to the best FUSE peer with [least-greatest]:", ratio_table(results, ours)]
    if results.cpu:
        parts += ["CPU time of the server per request, in microseconds:", cpu_table(results)]
    return "\n\n".join(parts)


def as_json(results, environment, missing):
    entries = []
    for job, rows in results.samples.items():
        for name, samples in rows.items():
            entry = {"job": job, "filesystem": name, "unit": results.units[job], "samples": samples, "median": results.median(job, name)}
            if results.cpu.get(job, {}).get(name):
                entry["server_us_per_request"] = median_of(results.cpu[job][name])
            entries.append({key: value for key, value in entry.items() if value is not None})
    return {"version": 1, "environment": environment, "missing": missing,
            "filesystems": [{"name": fs.name, "role": fs.role, "about": fs.about} for fs in results.filesystems], "results": entries}


def chart_panel(axes, results, job):
    names = [fs.name for fs in results.filesystems if fs.name != "tmpfs" and results.median(job, fs.name) is not None][::-1]
    colours = {fs.name: {"ours": "tab:red", "peer": "tab:blue"}.get(fs.role, "tab:gray") for fs in results.filesystems}
    axes.barh(names, [results.greatest(job, name) for name in names], color=[colours[name] for name in names])
    axes.set_title(f"{job} ({results.units[job]})", fontsize=8)
    axes.tick_params(labelsize=6)


def chart(results, jobs, path):
    """Small bars of the best rounds of these jobs; needs matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "mendfs", "svg.fonttype": "none"})
    from matplotlib import pyplot
    columns = 3
    rows = max(1, -(-len(jobs) // columns))
    figure, grid = pyplot.subplots(rows, columns, figsize=(15, 2.6 * rows), squeeze=False)
    for axes in grid.flat[len(jobs):]:
        axes.axis("off")
    for axes, job in zip(grid.flat, jobs):
        chart_panel(axes, results, job)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
