"""What `refloom fit-quality` does, between the command line and the library."""

import argparse
from dataclasses import asdict

from refloom.schemas import strict
from refloom.schemas.wording import quoted


def fit_quality(options: argparse.Namespace) -> int:
    """`refloom fit-quality DATASET`: writes a config and says how well it ranks what it was not fitted to."""
    from refloom.curation.taste import Fitted
    from refloom.curation.taste import fit_quality as fitted_to

    done: Fitted = fitted_to(
        options.dataset,
        labels=options.labels,
        out=options.out,
        ignore_unknown=options.ignore_unknown,
        replace=options.replace,
    )
    fit = done.fit
    weights = fit.settings.counted("object")
    if options.json:
        numbers = {name: asdict(getattr(fit, name)) for name in ("auc", "auc_before", "poor_share")}
        counts = {name: getattr(done, name) for name in ("good", "poor", "images", "without_components", "unknown")}
        found = {"file": done.file, **counts, **numbers, "min_quality": fit.min_quality, "weights": weights}
        print(strict.dumps(found | {"kept_share": fit.kept_share}, indent=1))
        return 0
    print(f"{done.good} good and {done.poor} poor references on {done.images} images")
    for count, why in ((done.without_components, "lack a component"), (done.unknown, "are not in the dataset")):
        if count:
            print(f"  {count} more {why} and were left out")
    print(f"AUC now     {fit.auc_before}")
    print(f"AUC fitted  {fit.auc}  each object by weights that its image had no part in; 95 % interval")
    if fit.auc.value <= fit.auc_before.value:
        print("  no better than now: judge more before you take them")
    print(f"a bound of {fit.min_quality:.3f} keeps {fit.kept_share:.0%} of the good; of what it keeps then")
    print(f"no good     {fit.poor_share}")
    for name, weight in sorted(weights.items(), key=lambda item: -item[1]):
        print(f"  {weight:7.3f}  {name}")
    print(
        f"wrote {done.file}: `refloom curate {quoted(str(options.dataset))} --config {quoted(done.file)} --replace` "
        "selects by it"
    )
    return 0
