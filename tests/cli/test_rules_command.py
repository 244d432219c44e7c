"""`rollwright rules`: what rules mean in a world, and what it says of those that cannot be read."""

from __future__ import annotations

import pytest

from rollwright.cli.commands import main


def test_it_tells_what_rules_demand_and_which_mean_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    main(["rules", "text.maze", "G !bump", "!(F bump)", "F up & (!up U left)", "G !"])
    said = capsys.readouterr().out
    assert "events of text.maze: up, down, left, right, bump, hazard, slip" in said
    assert "2 states; can be kept in 1 step; broken at once by bump" in said
    assert "4 states; can be kept in 2 steps; broken at once by up" in said
    assert "'G !' is left out: 'G !' is no formula: at character 4" in said
    assert "2 of one meaning: G !bump  |  !(F bump)" in said
    assert "the vote goes to: G !bump" in said


def test_a_rule_that_nobody_can_keep_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "text.maze", "F up & G !up"]) == 0
    assert "nobody can keep this rule" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text.bandit", "G !a"], "text.bandit names no events"),
        (["text.maze", "G !"], "'G !' is no formula"),
        (["text.maze", "G !fly"], "the formula speaks of fly; the events are"),
        (["text.household", "--any", "G !look"], "--any works with 10 events at most"),
        (["text.maze", "--option", "maze=none", "G !up"], "no maze is called 'none'"),
    ],
)
def test_what_it_cannot_do_is_one_paragraph(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", *words]) == 2
    assert said in capsys.readouterr().err
