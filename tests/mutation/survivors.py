"""Changes of the core that no test notices, and why that is right: (function, the line after it) to reason."""

from __future__ import annotations

REASONS = {
    (
        "_spans",
        "if window.end < window.start:",
    ): "Equivalent: the schema refuses a window that ends when it starts.",
    (
        "_moment",
        "day += timedelta(days=hours / 24)",
    ): "Equivalent: a date takes whole days only, and 24:00 is one.",
    (
        "_moment",
        "return datetime(day.year, day.month, day.day, hours % 24, minutes, tzinfo=where).astimezone(None)",
    ): "Equivalent: the same moment; moments of different zones are compared as moments.",
    (
        "_domain_limits",
        'bounds = {name: _in_domain(per, pool, name) for name in sorted(pool.domains or {"XXXX"})}',
    ): "Equivalent: without domains there is one limit, and it is shown without a name.",
    ("xǁ_Queueǁ__init__", 'self._next: tuple[_Rank, Place, int, int] | None = ""'): (
        "Equivalent: it is read only once a node came, which sets it."
    ),
    ("xǁ_Queueǁleave_out", 'self._next = ""'): "Equivalent: only its truth is asked for.",
    ("disturbed", 'boot, _, stamp = mark.rpartition(" ")'): "Equivalent: neither boot id nor stamp holds a blank.",
    ("_spans", "today = now.astimezone(None).date()"): (
        "Equivalent: two zones differ by a day at most, and more days than that are looked at on both sides."
    ),
    ("_hardware", 'vendor, _, device = wanted.rpartition(":")'): (
        "Equivalent: the playbook's schema allows exactly one colon."
    ),
    ("_inputs", r'return hashlib.sha256("XX\nXX".join(inputs).encode()).hexdigest()'): (
        "Equivalent: it separates the inputs of a digest, and any separator will do that no input holds."
    ),
    (
        "_owed_in_service",
        'return Owed(debt=Debt.NOTHING, job=stage.id if (stage) or True else "", verdict=Verdict.FAILED, why=why)',
    ): "Equivalent: a phase that was given up has a last job; the condition is there for the type checker.",
    (
        "_owed_in_service",
        'return Owed(debt=Debt.NOTHING, job=stage.id if stage else "XXXX", verdict=Verdict.FAILED, why=why)',
    ): "Equivalent: as above.",
}
