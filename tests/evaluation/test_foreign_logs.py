"""Logs of inspect_ai and lm-evaluation-harness, made by the packages themselves (`data/make_logs.py`), and CSV."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rollwright.contracts import DataError, MissingDependency, StopReason
from rollwright.evaluation import check_same_content, compare, read_any_evaluation
from rollwright.evaluation.foreign import archive_members
from rollwright.evaluation.foreign.archive_members import BoundedArchive
from rollwright.evaluation.foreign.log_reading import exact_number

DATA = Path(__file__).parent / "data"
A, B = DATA / "arithmetic_a.eval", DATA / "arithmetic_b.eval"


def lm_eval_file(side: str, task: str) -> Path:
    return next((DATA / f"lm_eval_{side}").rglob(f"samples_{task}_*.jsonl"))


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A deflated copy of an `.eval` in which `change` made each member anew, or left it out by None."""
    with BoundedArchive(str(source)) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in archive.names:
            if (content := change(name, archive.read(name))) is not None:
                copy.writestr(name, content)
    return target


def test_an_inspect_log_gives_one_row_per_sample_and_epoch() -> None:
    reading = read_any_evaluation(A, scorer="closeness")
    report = reading.report
    assert report is not None
    # Six samples in two epochs: sample 2 is NaN in both, sample 3 broke in the second, sample 4 met its message limit.
    assert (report.rows_read, report.num_scored, report.num_faults) == (12, 9, 1)
    assert (report.num_unscored, report.num_limited, report.num_edited) == (2, 2, 0)
    evaluation = reading.evaluation
    assert evaluation.origin == "foreign"
    assert (evaluation.policy, evaluation.world) == ("mockllm/model", "inspect_ai:arithmetic")
    assert "arithmetic/2" not in evaluation.tasks, "an absent score is no row, least of all a 0"
    broken = next(row for row in evaluation.rows if row.is_fault)
    assert (broken.task, broken.attempt) == ("arithmetic/3", 1)
    assert "sandbox" in broken.fault
    assert {r.stop_reason for r in evaluation.rows if r.task == "arithmetic/4"} == {StopReason.MAX_TURNS}


def test_correct_and_incorrect_become_verdicts_and_edits_are_said() -> None:
    reading = read_any_evaluation(A, scorer="match")
    solved = {(row.task, row.attempt) for row in reading.evaluation.rows if row.success}
    # Right up to sample 3 by the mock model; sample 5 was edited to C in the first epoch.
    assert solved == {
        *(("arithmetic/1", n) for n in (0, 1)),
        *(("arithmetic/2", n) for n in (0, 1)),
        *(("arithmetic/3", 0), ("arithmetic/5", 0)),
    }
    assert reading.report is not None
    assert reading.report.num_edited == 1
    assert "edited" in str(reading.report)


def test_two_inspect_logs_are_paired_where_both_have_a_number() -> None:
    a, b = (read_any_evaluation(path, scorer="closeness") for path in (A, B))
    pairing = check_same_content(a, b)
    # Of 12 rows: 2 unscored, 1 fault, and sample 6 (2 rows) is missing in B: samples 1, 4, 5 twice and 3 once.
    assert (pairing.num_paired, pairing.num_only_a, pairing.num_only_b) == (7, 2, 0)
    assert any("task_args" in warning for warning in pairing.warnings)
    assert compare(a.evaluation, b.evaluation).num_pairs == 7


def test_a_scorer_must_be_named_where_there_are_two() -> None:
    with pytest.raises(DataError, match="2 scorers: closeness, match"):
        read_any_evaluation(A)
    with pytest.raises(DataError, match="Did you mean 'match'"):
        read_any_evaluation(A, scorer="mach")
    with pytest.raises(DataError, match="--scorer"):
        read_any_evaluation(A, metric="match")
    with pytest.raises(DataError, match="name one that both have"):
        check_same_content(read_any_evaluation(A, scorer="match"), read_any_evaluation(B, scorer="closeness"))


def test_another_question_under_the_same_id_is_refused(tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"What is 5 + 5?", b"What is 5 + 6?") if name == "samples/5_epoch_1.json" else content

    other = rewritten(B, tmp_path / "b.eval", change)
    readings = [read_any_evaluation(path, scorer="match") for path in (A, other)]
    with pytest.raises(DataError, match="arithmetic/5 is another question"):
        check_same_content(*readings)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("header.json", b'"status": "success"', b'"status": "error"', "ended as 'error'"),
        ("header.json", b'"version": 2', b'"version": 9', "log version 9"),
        ("header.json", b'"eval"', b'"evil"', "no part `eval`"),
        ("header.json", b"{", b"", "not JSON"),
        ("samples/1_epoch_1.json", b'"value": "C"', b'"value": "sure"', "the text 'sure'"),
        ("samples/1_epoch_1.json", b'"value": "C"', b'"value": Infinity', "infinite"),
        ("samples/1_epoch_1.json", b'"value": "C"', b'"value": [1, 2]', "a list"),
        ("samples/1_epoch_1.json", b'"epoch": 1', b'"epoch": 2', "'arithmetic/1' .attempt 1. twice"),
    ],
)
def test_a_log_that_cannot_be_trusted_is_refused(
    tmp_path: Path, name: str, old: bytes, new: bytes, message: str
) -> None:
    def change(member: str, content: bytes) -> bytes:
        if member != name:
            return content
        content = content if old in content else json.dumps(json.loads(content)).encode()
        assert old in content
        return content.replace(old, new, 1)

    path = rewritten(A, tmp_path / "a.eval", change)
    with pytest.raises(DataError, match=message):
        read_any_evaluation(path, scorer="match")


def test_a_run_that_did_not_finish_has_no_header_and_is_refused(tmp_path: Path) -> None:
    path = rewritten(A, tmp_path / "a.eval", lambda name, content: None if name == "header.json" else content)
    with pytest.raises(DataError, match="did not finish"):
        read_any_evaluation(path, scorer="match")


def test_member_names_that_climb_are_only_names(tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content

    (tmp_path / "inner").mkdir()
    path = rewritten(A, tmp_path / "inner" / "a.eval", change)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.json", b"{}")
    assert read_any_evaluation(path, scorer="match").evaluation.rows
    assert not (tmp_path / "outside.json").exists()


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBER_BYTES", 1 << 20)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b"0" * (2 << 20))
    with pytest.raises(DataError, match="at most 1 MiB"):
        read_any_evaluation(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24  # the size that the directory states: now below what is really in there
    content[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_any_evaluation(path)


def test_a_damaged_archive_is_an_error_of_one_paragraph(tmp_path: Path) -> None:
    content = bytearray(A.read_bytes())
    content[200] ^= 0xFF
    (tmp_path / "a.eval").write_bytes(content)
    (tmp_path / "b.eval").write_bytes(content[:500])
    for name in ("a.eval", "b.eval"):
        with pytest.raises(DataError, match=r"damaged|not a zip"):
            BoundedArchive(str(tmp_path / name)).read("_journal/start.json")


def test_without_zstandard_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependency, match="pip install"):
        read_any_evaluation(A, scorer="match")


def test_an_lm_eval_log_gives_one_row_per_document() -> None:
    a, b = (read_any_evaluation(lm_eval_file(side, "sums_choice")) for side in "ab")
    assert a.report is not None
    assert (a.report.rows_read, a.report.choice) == (8, {"filter": "none", "metric": "acc"})
    results = json.loads(next((DATA / "lm_eval_a").rglob("results_*.json")).read_text())
    scores = [row.total_return for row in a.evaluation.rows]
    assert sum(scores) / len(scores) == results["results"]["sums_choice"]["acc,none"]
    pairing = check_same_content(a, b)
    assert (pairing.num_paired, pairing.num_only_a, pairing.num_only_b) == (8, 0, 0)


def test_two_filters_are_refused_until_one_is_named() -> None:
    path = lm_eval_file("a", "small_sums")
    with pytest.raises(DataError, match="2 filters: first-number, whole-answer"):
        read_any_evaluation(path)
    assert len(read_any_evaluation(path, filter_name="whole-answer").evaluation.rows) == 8
    with pytest.raises(DataError, match="Did you mean 'whole-answer'"):
        read_any_evaluation(path, filter_name="whole-answers")


def test_another_doc_hash_is_refused_with_its_document(tmp_path: Path) -> None:
    source = lm_eval_file("b", "sums_choice")
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    next(line for line in lines if line["doc_id"] == 4)["doc_hash"] = "0" * 64
    other = tmp_path / source.name
    other.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="sums_choice/4 is another question"):
        check_same_content(read_any_evaluation(lm_eval_file("a", "sums_choice")), read_any_evaluation(other))


def test_renamed_files_are_still_paired(tmp_path: Path) -> None:
    for side in "ab":
        shutil.copy(lm_eval_file(side, "sums_choice"), tmp_path / f"{side}.jsonl")
    pairing = check_same_content(*(read_any_evaluation(tmp_path / f"{side}.jsonl") for side in "ab"))
    assert pairing.num_paired == 8


def test_a_document_logged_twice_is_refused(tmp_path: Path) -> None:
    source = lm_eval_file("a", "sums_choice")
    twice = tmp_path / source.name
    twice.write_text(source.read_text() * 2)
    with pytest.raises(DataError, match="twice"):
        read_any_evaluation(twice)


def test_a_folder_with_one_sample_log_is_that_log(tmp_path: Path) -> None:
    source = lm_eval_file("a", "sums_choice")
    (tmp_path / "model").mkdir()
    shutil.copy(source, tmp_path / "model")
    evaluation = read_any_evaluation(tmp_path).evaluation
    assert evaluation.tasks == read_any_evaluation(source).evaluation.tasks
    with pytest.raises(DataError, match="2 sample logs"):
        read_any_evaluation(DATA / "lm_eval_a")


def test_a_metric_of_which_less_is_better_is_negated(tmp_path: Path) -> None:
    source = lm_eval_file("a", "sums_choice")
    results = next(source.parent.glob("results_*.json"))
    shutil.copy(source, tmp_path)
    told = json.loads(results.read_text())
    told["higher_is_better"]["sums_choice"]["acc"] = False
    (tmp_path / results.name).write_text(json.dumps(told))
    reading = read_any_evaluation(tmp_path / source.name)
    assert sum(row.total_return for row in reading.evaluation.rows) == -2.0
    assert "negated" in str(reading.report)


@pytest.mark.parametrize(
    ("value", "number"),
    [("0.5", 0.5), ("True", 1.0), (False, 0.0), ("1e-3", 1e-3), (float("nan"), None), ("NaN", None), (None, None)],
)
def test_text_is_a_number_exactly_or_not_at_all(value: object, number: float | None) -> None:
    assert exact_number(value, what="s") == number


@pytest.mark.parametrize(
    "value", ["0.5 of 1", "0,5", "yes", "__import__('os')", "0x10", "1_0", [0.5], {}, "inf", 10**400]
)
def test_what_is_not_exactly_a_number_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="expected"):
        exact_number(value, what="the score")


def test_a_table_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("task,seed,score,attempt\nmaze,1,1,0\nmaze,1,0,1\nmaze,two,NaN,0\nmaze,3,0,0\n")
    reading = read_any_evaluation(path)
    assert [(row.task, row.attempt, row.success) for row in reading.evaluation.rows] == [
        *(("maze", 0, True), ("maze", 1, False), ("maze", 0, False)),
    ]
    assert reading.report is not None
    assert reading.report.num_unscored == 1
    path.write_text("task,seed,reward\nmaze,1,0.25\n")
    row = read_any_evaluation(path, metric="reward").evaluation.rows[0]
    assert (row.success, row.total_return) == (None, 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,seed,scores\na,1,1\n", "no column 'score'.*Is it 'scores'"),
        ("task,seed,score\na,1,1\na,1,0\n", "twice"),
        ("task,seed,score\na,1\n", "expected 3 values"),
        ("task,seed,score\n,1,1\n", "must not be empty"),
        ("task,seed,score\na,1,=1+1\n", "'=1[+]1'"),
        ("task,seed,score\na,1,\n", "no score"),
        ("", "no column"),
    ],
)
def test_a_table_that_is_wrong_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_any_evaluation(path)


def test_own_evaluations_and_logs_of_others_are_not_paired(tmp_path: Path) -> None:
    from rollwright.evaluation import Evaluation, save_evaluation

    row = read_any_evaluation(A, scorer="match").evaluation.rows[0]
    own = Evaluation(name="own", split="test", policy="p", version=1, temperature=0.0, rows=(row,), sampling={})
    reading = read_any_evaluation(save_evaluation(own, tmp_path))
    assert reading.report is None
    with pytest.raises(DataError, match="cannot be paired"):
        check_same_content(reading, read_any_evaluation(A, scorer="match"))
    with pytest.raises(DataError, match="no evaluation"):
        read_any_evaluation(tmp_path / "absent.eval")
