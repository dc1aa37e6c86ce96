"""The batch's single steps, each of them idempotent: what the store or results/ already has is not done again.

python -m reprolib train TABLE COLUMN --profile cpu              a training of a table's grid
python -m reprolib evaluate TABLE COLUMN EPOCH ATTACK --profile cpu   one attack on one of its checkpoints
python -m reprolib notebook PATH --profile cpu                   a notebook, by papermill, into results/cpu
python -m reprolib readme                                        the README's status block, from results/
python -m reprolib costs --profile paper                         an estimate of the hours that a profile takes
"""

from __future__ import annotations

import argparse
import sys

from reprolib import specs


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.step(options) or 0
    except specs.SpecError as error:  # before the others, whose import takes seconds
        message = error
    except _expected_errors() as error:
        message = error
    print(f"error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reprolib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")
    for name, step, positional in (
        ("train", _train, ("table", "column")),
        ("evaluate", _evaluate, ("table", "column", "epoch", "attack")),
        ("notebook", _notebook, ("path",)),
        ("readme", _readme, ()),
        ("costs", _costs, ()),
    ):
        sub = steps.add_parser(name)
        sub.set_defaults(step=step)
        for argument in positional:
            sub.add_argument(argument, type=int if argument == "epoch" else str)
        if positional or name == "costs":
            sub.add_argument("--profile", default="quick")
    return parser


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is all that a reader needs; anything else keeps its traceback."""
    from reprolib import batch, data, report, store

    return store.StoreError, data.DataError, report.RecordError, batch.NotebookError


def _plan(options: argparse.Namespace) -> specs.Plan:
    plan = specs.Plan(specs.load_grid(options.table), specs.load_profile(options.profile))
    if options.column not in plan.networks:
        raise specs.SpecError(specs.suggest(options.column, list(plan.networks), "column"))
    return plan


def _train(options: argparse.Namespace) -> None:
    from reprolib import evaluation, store, training

    plan = _plan(options)
    spec, epochs = plan.trainings[list(plan.networks).index(options.column)]
    training.train(spec, epochs, evaluation.load_dataset(plan), store.Store())


def _evaluate(options: argparse.Namespace) -> None:
    from reprolib import evaluation, store

    plan = _plan(options)
    planned = [*plan.jobs, *plan.epoch_jobs, *plan.ensemble_jobs, *plan.sweep_jobs]
    attacks = list(dict.fromkeys(job.attack for job in planned))
    if options.attack not in attacks:
        raise specs.SpecError(specs.suggest(options.attack, attacks, "attack"))
    jobs = [
        job.evaluation
        for job in planned
        if (job.column, job.evaluation.epoch, job.attack) == (options.column, options.epoch, options.attack)
    ]
    if not jobs:
        epochs = sorted(
            {job.evaluation.epoch for job in planned if (job.column, job.attack) == (options.column, options.attack)}
        )
        raise specs.SpecError(
            f"{options.table} has no attack {options.attack!r} on {options.column!r} at epoch "
            f"{options.epoch}; known: {', '.join(map(str, epochs))}"
        )
    dataset, artefacts = evaluation.load_dataset(plan), store.Store()
    for job in jobs:
        evaluation.evaluate(job, dataset, artefacts)


def _notebook(options: argparse.Namespace) -> None:
    from reprolib import batch

    specs.load_profile(options.profile)  # a wrong name should say so before anything else is said
    print(f"{batch.find_notebook(options.path).stem}: started", flush=True)
    print(batch.run_notebook(options.path, options.profile), flush=True)


def _readme(options: argparse.Namespace) -> None:
    from reprolib import report

    report.write_readme()


def _costs(options: argparse.Namespace) -> None:
    from reprolib import costs

    print(costs.page(options.profile))


if __name__ == "__main__":
    sys.exit(main())
