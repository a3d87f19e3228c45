"""The table of one run, in words: what each row is, and what was not measured."""

from __future__ import annotations

from typing import Any

ROWS = {
    "ours": "ours: phi on A and B, both spectra (S of delta W), loading included",
    "ours_with_in_out": "ours: the same, and phi on in and out",
    "ours_similarity_A": "similarity(side='A'): with null, p-values, errors, agreeing",
    "ours_similarity_B": "similarity(side='B'): likewise",
    "ours_p_values": "  the p-values of one side alone, every (i, j) cell",
    "ours_spectra": "spectra(a), spectra(b): called alone",
    "qr_float32": "float32 Householder QR loop, torch's own threads",
    "qr_float32_one_thread_a_core": "float32 QR, one Python thread a core, one BLAS thread each",
    "floor": "the machine's floor: the two below, the better layout",
    "floor_read": "  every mapped byte read once",
    "floor_gram_rows": "  float64 Gram products alone, stored by rows",
    "floor_gram_columns": "  float64 Gram products alone, stored by columns",
}


BASE_ROWS = {
    "sweep": "the pass: |W| and U^T W V of both adapters, bfloat16 converted in panels",
    "floor": "  the floor: the same products alone, of a W in memory in float32",
    "no_top": "amplification --no-top: all of Table 7 but W's own top",
    "top_cold": "amplification, W's own top 64 found (once)",
    "top_kept": "amplification again, W's own top from the cache (once)",
}


def base_table(out: dict[str, Any]) -> str:
    """Render what `base_7b.run` gives."""
    family, times, memory, ratios = out["family"], out["times"], out["memory"], out["ratios"]
    ranks = " and ".join(map(str, family["ranks"]))
    lines = [
        f"{family['name']}: {family['modules']} modules in {family['shards']} shards, bfloat16, "
        f"{family['bytes'] / 1e6:.0f} MB; two adapters, r = {ranks}; page cache warm",
        _machine(out),
        "",
        f"{'wall s':>9} {'CPU s':>9}",
    ]
    lines += [
        f"{times[name]['wall_s']:9.3f} {times[name]['cpu_s']:9.3f}  {words}"
        for name, words in BASE_ROWS.items()
    ]
    gram = out["gram"]
    some = ", ".join(
        f"{m['shape'][0]} x {m['shape'][1]} in {m['wall_s']:.2f} s" for m in gram["measured"]
    )
    lines += [
        f"{gram['wall_s']:9.1f} {'':9}  all of W's values by the Gram, EXTRAPOLATED from {some}",
        "",
        f"the pass / the floor             {ratios['sweep_over_floor_wall']:5.2f} wall, "
        f"{ratios['sweep_over_floor_cpu']:.2f} CPU",
        f"the Gram / W's own top as found  {ratios['gram_over_top_wall']:5.2f} wall",
        "",
        f"peak anonymous memory, the largest W in float32 being "
        f"{family['largest_float32'] / 1e6:.0f} MB",
    ]
    lines += [
        f"{memory[way]['anonymous'] / 1e6:9.0f} MB  {ratios[way + '_over_largest']:5.2f} x  {words}"
        f" (mapped pages of files: {memory[way]['mapped'] / 1e6:.0f} MB)"
        for way, words in (
            ("sweep", "the pass"),
            ("no_top", "amplification --no-top"),
            ("top", "amplification"),
        )
    ]
    accuracy = out["accuracy"]
    lines += [
        "",
        f"relative difference from float64: |W| {accuracy['norm']:.1e}, |U^T W V| "
        f"{accuracy['projection']:.1e}, W's top 64 {gram['krylov_off_by']:.1e}",
    ]
    return "\n".join(lines)


def page_table(out: dict[str, Any]) -> str:
    """Render what `page.run` gives."""
    family, pages = out["family"], out["pages"]
    low, top = family["ranks"][0], family["high"]
    words = {
        "word": "a page of one word: the browser's own part",
        "real": f"data/adapters, 3 adapters, Tables 6 and 7: {pages['real']['modules']} modules",
        "pair": f"{family['name']}, r = {low} and {top}: {pages['pair']['modules']} modules",
        "high": f"{family['name']}, r = {top - 1} and {top}: {pages['high']['modules']} modules",
    }
    lines = [_machine(out).replace("best of", "median (least-most) of"), ""]
    lines += ["   computed    written     size"]
    lines += [
        f"{page['compute_s']:9.2f} s {page['write_s']:8.2f} s {page['bytes'] / 1e6:5.2f} MB  "
        f"{words[name]}"
        for name, page in pages.items()
    ]
    for slower in ("1", str(out["slower"])):
        how = "" if slower == "1" else f", its processor {slower} times slower"
        lines += ["", f"ms from opening the file{how}"]
        titles = ("first paint", "first content", "parsed", "map shown")
        lines.append(" ".join(f"{title:>18}" for title in titles) + "  moved")
        for name, page in pages.items():
            times = page["opened"][slower]
            cells = [_ms(times[what]) for what in ("paint", "content", "parsed", "map")]
            moved = f"{times['moved']['most']:6.3f}"
            lines.append(" ".join(f"{cell:>18}" for cell in cells) + f" {moved}  {words[name]}")
    return "\n".join(lines)


def _ms(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.0f} ({spread['least']:.0f}-{spread['most']:.0f})"


def _machine(out: dict[str, Any]) -> str:
    machine = out["machine"]
    return (
        f"{machine['date']}, {machine['cpu']}, {machine['threads']} threads, "
        f"Python {machine['python']}, torch {machine['torch']}, subspace {machine['subspace']}, "
        f"load average before {machine['load_average_before']}; best of {out['repeat']}, "
        "interleaved"
    )


def table(out: dict[str, Any]) -> str:
    """Render what `pair_7b.run` gives."""
    family, times = out["family"], out["times"]
    ranks = " and ".join(map(str, family["ranks"]))
    lines = [
        f"{family['name']}: {family['modules']} modules, r = {ranks}, {family['dtype']}, "
        f"{family['bytes'] / 1e6:.0f} MB mapped from disk, page cache {out['page_cache']}",
        _machine(out),
        "",
        f"{'wall s':>9} {'CPU s':>9}",
    ]
    lines += [
        f"{times[name]['wall_s']:9.3f} {times[name]['cpu_s']:9.3f}  {words}"
        for name, words in ROWS.items()
    ]
    if "dense_svd" in out:
        dense = out["dense_svd"]
        some = ", ".join(
            f"{m['shape'][0]} x {m['shape'][1]} in {m['cpu_s']:.2f} CPU s"
            for m in dense["measured_modules"]
        )
        lines.append(
            f"{dense['wall_s']:9.0f} {dense['cpu_s']:9.0f}  dense float32 SVD of every delta W, "
            f"EXTRAPOLATED from {some}"
        )
    ratios, accuracy = out["ratios"], out["accuracy"]
    lines += ["", "ratios           wall    CPU"]
    for name, words in (
        ("ours_over_floor", "ours / floor"),
        ("qr_over_ours", "QR loop / ours"),
        ("best_qr_over_ours", "better QR / ours"),
    ):
        lines.append(f"{words:16} {ratios[name + '_wall']:5.2f}  {ratios[name + '_cpu']:5.2f}")
    if "dense_over_ours_cpu" in ratios:
        lines.append(f"dense / ours            {ratios['dense_over_ours_cpu']:6.0f}  extrapolated")
    lines += ["", f"max |phi - phi of float64 QR| over {accuracy['modules']} modules"]
    for side, worst in accuracy["ours"].items():
        loose = accuracy["qr_float32"].get(side)
        lines.append(
            f"  side {side:3} ours {worst:.1e} (it states at most "
            f"{accuracy['stated_bound'][side]:.1e})"
            + ("" if loose is None else f", float32 QR {loose:.1e}")
        )
    return "\n".join(lines)
