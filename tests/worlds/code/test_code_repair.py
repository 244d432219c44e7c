"""code.repair: repositories, mutations, tools, verdicts, the planner."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import SPLITS
from rollwright.envs.code import repair
from rollwright.envs.code.repairs import bugs, repositories
from rollwright.envs.code.repairs.mutation import mutations
from rollwright.envs.code.repairs.repository_tools import (
    EditError,
    apply_edit,
    find_code,
    find_definitions,
    parse_action,
    show_file,
)
from rollwright.envs.code.sandbox import BoxPool, pytest_packages, unavailable_reason

boxed = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]


@pytest.fixture(scope="module")
def world():
    made = repair.build(tasks_per_repository=10)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pool():
    made = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages())
    yield made
    made.close()


def test_every_mutation_is_python_and_changes_one_place() -> None:
    for name in repositories.SPLIT_OF:
        repository = repositories.load(name)
        assert 5 <= len(repository.modules) <= 10
        for path in repository.modules:
            source = repository.files[path]
            for mutation in mutations(source):
                broken = mutation.apply(source)
                assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(source))
                pairs = enumerate(zip(source.splitlines(), broken.splitlines(), strict=True), 1)
                changed = [i for i, (old, new) in pairs if old != new]
                assert changed == [mutation.line]


def test_mutations_by_hand() -> None:
    source = "def f(x):\n    return x < 3 and not x\n"
    assert sorted({m.apply(source).splitlines()[1].strip() for m in mutations(source)}) == [
        "return (x < 3 or not x)",
        "return x < 2 and not x",
        "return x < 3 and (x)",
        "return x < 4 and not x",
        "return x <= 3 and not x",
    ]
    with pytest.raises(ValueError, match="has changed"):
        mutations(source)[0].apply("x = 1\n")


def test_the_mutator_works_on_an_installed_package() -> None:
    import packaging

    found = [m for path in Path(packaging.__file__).parent.glob("*.py") for m in mutations(path.read_text())]
    assert len(found) > 100


def test_bugs_are_those_of_the_repositories_as_they_are() -> None:
    for name in repositories.SPLIT_OF:
        assert len(bugs.known(name)) >= 30


@pytest.mark.parametrize("name", repositories.SPLIT_OF)
@pytest.mark.sandbox
@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available")
def test_a_repository_passes_its_tests_and_a_bug_fails_them(name: str, pool: BoxPool) -> None:
    repository = repositories.load(name)
    assert repositories.judge(pool, repository, repository.files).success
    report = repositories.run_tests(pool, repository, repository.files)
    assert not report.failed and report.passed >= 10
    for bug in random.Random(1).sample(bugs.known(name), 4):
        broken = bugs.with_bugs(repository, [bug])
        assert tuple(repositories.run_tests(pool, repository, broken).failed) == bug.failing
        assert not repositories.judge(pool, repository, broken).success


class TestInTheBox:
    pytestmark = boxed

    def test_it_keeps_the_contract(self) -> None:
        check_env(repair.build(tasks_per_repository=2), tasks_per_split=1, seeds=1)

    def test_patches_keep_the_contract(self) -> None:
        check_env(repair.build(style="patch", tasks_per_repository=1), tasks_per_split=1, seeds=1)

    @pytest.mark.parametrize(("style", "count"), [("tools", 1), ("tools", 2), ("patch", 1)])
    def test_the_planner_repairs(self, style: str, count: int) -> None:
        world = repair.build(style=style, bugs=count, tasks_per_repository=3)
        for split in SPLITS:
            for task in world.tasks(split):
                env, teacher = world.make(), world.teacher(task)
                seen, result = env.reset(task, episode_seed(split, "t")), None
                while result is None or not result.terminated:
                    result = env.step(teacher.act(env, seen))
                assert result.success and result.rewards == {"tests": 1.0} and env.used <= world.max_turns
        world.close()

    def test_a_dialogue(self, world: repair.RepairWorld) -> None:
        task = next(t for t in world.tasks("test"))
        env = world.make()
        first = env.reset(task, episode_seed("test", 0))
        assert "These tests fail:\ntests/test_" in first.goal and "bank/rules.py" in first.text
        actions = ["list", "read bank/rules.py 1 3", "read nowhere.py", "search_method fee", "search_class Bank"]
        actions += ["search_code def fee", "test tests/test_interest.py", "edit tests/test_bank.py\nx", "dance"]
        actions += ["edit bank/rules.py", "test no/such.py"]
        say = {a: env.step(a).observation for a in actions}
        assert say["read bank/rules.py 1 3"].splitlines()[0] == '   1 """What is allowed."""'
        assert say["search_method fee"].startswith("bank/rules.py:\n") and "class Bank" in say["search_class Bank"]
        assert say["search_code def fee"].startswith("bank/rules.py:") and "No such file" in say["read nowhere.py"]
        assert "cannot be edited" in say["edit tests/test_bank.py\nx"]
        assert "no search/replace" in say["edit bank/rules.py"]
        assert "No such command" in say["dance"] and say["test no/such.py"] == "No such test."
        assert "failed" in say["test tests/test_interest.py"]
        result = env.step("submit")
        assert result.terminated and result.success is False and result.rewards == {"tests": 0.0}

    @pytest.mark.parametrize(
        "forgery",
        [
            "import os\nos._exit(0)\n",
            "import sys, types\nclass E(int):\n    def __eq__(self, o): return True\n",
            "import pytest\npytest.raises = None\n",
            "import sys\nfor m in list(sys.modules.values()):\n    m.__dict__.pop('assert', None)\n",
            "import _pytest.runner as r\nr.call_runtest_hook = lambda *a, **k: None\n",
            "import os\nfor fd in range(3, 99):\n    try: os.write(fd, b'passed')\n    except OSError: pass\n",
        ],
    )
    def test_a_repository_cannot_pass_itself(self, world: repair.RepairWorld, forgery: str) -> None:
        task = world.tasks("test")[0]
        env = world.make()
        env.reset(task, episode_seed("test", 0))
        env.step(f'edit bank/__init__.py\n<<<<<<< SEARCH\n"""A bank."""\n=======\n{forgery}>>>>>>> REPLACE')
        assert forgery.splitlines()[0] in env.files["bank/__init__.py"]
        assert env.step("submit").success is False

    def test_an_installed_package_is_repaired_too(self, tmp_path: Path) -> None:
        tests = "from iniconfig import IniConfig\n\n\ndef test_values():\n"
        tests += "    ini = IniConfig('x', '[a]\\nb = 1\\nc = 2\\n')\n"
        tests += "    assert ini['a']['b'] == '1'\n    assert ini.get('a', 'd', default='z') == 'z'\n"
        tests += "\n\ndef test_sections():\n    assert list(IniConfig('x', '[a]\\nb = 1\\n').sections) == ['a']\n"
        (tmp_path / "test_ini.py").write_text(tests)
        world = repair.build(package="iniconfig", package_tests=str(tmp_path), tasks_per_repository=2)
        found = [task for split in SPLITS for task in world.tasks(split)]
        assert found
        for task in found:
            env, teacher, result = world.make(), world.teacher(task), None
            seen = env.reset(task, episode_seed(task.split, "t"))
            while result is None or not result.terminated:
                result = env.step(teacher.act(env, seen))
            assert result.success
            env.reset(task, episode_seed(task.split, "t"))
            assert env.step("submit").success is False  # pytest brings an iniconfig of its own, which is not asked
        world.close()

    @pytest.mark.parametrize(
        ("test", "why"),
        [
            ("def test_a():\n    assert IniConfig('x', '[a]') == IniConfig('x', '[a]')\n", "__eq__"),
            ("def test_a(tmp_path):\n    assert IniConfig('x', '[a]').path == 'x'\n", "without arguments"),
            (
                "class TestA:\n    def test_a(self):\n        assert IniConfig('x', '').path == 'x'\n",
                "there are none",
            ),
            ("def test_a():\n    assert IniConfig('x', '[a]').path == 'y'\n", "AssertionError"),
        ],
    )
    def test_tests_that_cannot_judge_a_package_are_refused(self, tmp_path: Path, test: str, why: str) -> None:
        (tmp_path / "test_ini.py").write_text(f"from iniconfig import IniConfig\n\n\n{test}")
        with pytest.raises(ConfigError, match=why):
            repair.build(package="iniconfig", package_tests=str(tmp_path), tasks_per_repository=1)


def test_edits_are_exact() -> None:
    text = "a\nb\na\nc\n"

    def block(old: str, new: str) -> str:
        return f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE"

    assert apply_edit(text, block("b\n", "B\n")) == "a\nB\na\nc\n"
    assert apply_edit(text, block("b\na\n", "")) == "a\nc\n"
    assert apply_edit(text, block("b\n", "x\n") + "\n" + block("x\n", "y\n")) == "a\ny\na\nc\n"
    for old, why in (("a\n", "2 times"), ("z\n", "nowhere"), ("", "empty"), ("\n", "empty")):
        with pytest.raises(EditError, match=why):
            apply_edit(text, block(old, "q\n"))
    with pytest.raises(EditError, match="no search"):
        apply_edit(text, "just words")


def test_tools_by_hand() -> None:
    text = "class A:\n    def f(self):\n        return 1\n\n\ndef f():\n    return 2\n"
    files = {"m.py": text, "broken.py": "def f(:"}
    assert find_definitions(files, "f", "function").count("m.py:") == 2
    assert find_definitions(files, "A", "class").startswith("m.py:\n   1 class A:")
    assert find_definitions(files, "g", "function") == "No function is called 'g'."
    assert find_code(files, "return 2") == "m.py:7: return 2"
    assert show_file(files, "m.py 6 7") == "   6 def f():\n   7     return 2"
    assert parse_action("```\nedit  m.py\nrest\n```") == ("edit", "m.py", "rest")
    with pytest.raises(EditError):
        show_file(files, "m.py x")


@pytest.mark.parametrize("options", [{"style": "x"}, {"bugs": 0}, {"max_turns": 0}, {"package": "json"}])
def test_options_without_meaning_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        repair.build(**options)
