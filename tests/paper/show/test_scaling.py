"""The job graph as a picture, and the tables of a simulated batch, of four jobs whose times are worked out by hand."""

import matplotlib.pyplot as plt

from reprolib.paper import cli, files, show
from reprolib.paper.run import schedule
from reprolib.paper.run.schedule import Task

FORK = [
    Task("training/a", "training", 3600),
    Task("training/b", "training", 7200, ("training/a",)),
    Task("evaluation/c", "evaluation", 1800, ("training/a",)),
    Task("page", "page", 60, ("training/b", "evaluation/c")),
]


def test_each_job_is_a_bar_that_begins_where_it_could():
    figure = show.plot_jobs(FORK)
    axis = figure.axes[0]
    bars = {(round(bar.get_x()), round(bar.get_width())) for bar in axis.patches}
    assert bars == {(0, 60), (60, 120), (60, 30), (180, 1)}
    assert len(axis.collections[0].get_paths()) == 2, "of the trainings and the evaluation; a page's lines are left out"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "trainings (2)",
        "evaluations (1)",
        "pages (1)",
    ]
    plt.close(figure)


def test_the_tables_say_what_the_simulation_found():
    table = show.scaling_table({"as it is": FORK}, (1, 2))
    assert table["GPUs"].tolist() == ["1", "2", "no limit"]
    assert table["as it is"].tolist() == ["3.5 h, 0 % idle", "3.0 h, 42 % idle", "3.0 h"]
    assert show.chain_table(FORK)["minutes"].tolist() == ["60.0", "120.0", "1.0"]
    assert show.bytes_table({"checkpoints": 2e6, "outcomes": 5e5})["MB"].tolist() == ["2.0", "0.5", "2.5"]
    row = show.estimates_table({"table06": {"training": (90, 60)}}).iloc[0]
    assert row.tolist() == ["table06", "trainings", "1.5", "1.0", "1.50"]


def test_make_graph_draws_a_profiles_jobs(monkeypatch, results, capsys):
    monkeypatch.setattr(schedule, "tasks", lambda profile: FORK)
    assert cli.main(["graph", "--profile", "cpu"]) == 0
    assert capsys.readouterr().out == f"Open {files.shown(results / 'cpu' / 'jobs.svg')}\n"
    assert "trainings (2)" in (results / "cpu" / "jobs.svg").read_text()
    assert cli.main(["graph", "--profile", "cpuu"]) == 1 and "did you mean 'cpu'" in capsys.readouterr().err
