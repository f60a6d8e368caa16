"""Changes of the core that no test notices, and why that is right: (function, the line after it) to reason."""

from __future__ import annotations

REASONS = {
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
