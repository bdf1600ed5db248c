"""A configuration says everything once, comes back identically, and refuses what it cannot mean in one line."""

import json
import math
from pathlib import Path

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from wavegen.config import VERSION, Config, dump_config, load_config, resolve
from wavegen.config.codec_models import AdversarialConfig
from wavegen.config.files import _sections
from wavegen.config.shipped import describe, shipped
from wavegen.config.study import load_study
from wavegen.errors import WavegenError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

# What a section cannot do without, so that its other fields can be set.
REQUIRED = {
    "features": ["width=3", "hop_length=64"],
    "codes": ["hop_length=64", "codec.run=runs/codec"],
    "trained": ["run=runs/codec"],
    "pretrained": ["pretrained=codec"],
    "spectrogram": ["codebook=codebook.safetensors"],
}


def fields(section: type[BaseModel] = Config, prefix: str = "", setup: tuple[str, ...] = ()):
    """Every field of the configuration: its key, what it is, and the overrides that make it appear."""
    for name, field in section.model_fields.items():
        yield prefix + name, field, setup
        options = _sections(field.annotation)
        for inner in options:
            more = (f"{prefix}{name}.start=1",) if inner is AdversarialConfig else ()
            if "kind" in inner.model_fields:
                kind = inner.model_fields["kind"].default
                more = tuple(f"{prefix}{name}.{text}" for text in (f"kind={kind}", *REQUIRED.get(kind, ())))
            yield from fields(inner, f"{prefix}{name}.", setup + more)


def limits(field) -> list[tuple[type, float]]:
    pairs = ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt"))
    return [(k, getattr(m, name)) for m in field.metadata for k, name in pairs if isinstance(m, k)]


LIMITS = [
    (key, setup, kind, limit)
    for key, field, setup in fields()
    for kind, limit in limits(field)
    if key != "version" and "model.local.codec.kind=pretrained" not in setup
]


# --- what is shipped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_says_what_it_is(path):
    if path.parent.name == "studies":
        assert load_study(path).config.name == path.stem
    else:
        config = load_config(path)
        assert config.name == path.stem
        assert config.version == VERSION
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert str(path.relative_to(ROOT)) in " ".join(header), "the header gives the command"
    assert all(describe(path))


def test_the_shipped_configurations_are_found():
    assert {"quickstart", "fsdd"} <= {path.stem for path in CONFIGS}
    assert {path.stem for path in CONFIGS} == set(shipped()) | set(shipped("studies"))


def test_a_shipped_configuration_opens_by_its_name_and_a_file_of_that_name_goes_before_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert load_config("fsdd", ["seed=5"]).name == "fsdd"
    assert load_study("dropout").config.name == "dropout"
    Path("fsdd").write_text("name: mine")
    assert load_config("fsdd").name == "mine"
    with pytest.raises(WavegenError, match="no configuration file fsd; did you mean fsdd"):
        load_config("fsd")


# --- a configuration comes back identically -----------------------------------------------------------------

head = st.one_of(
    st.just({"kind": "softmax"}),
    st.fixed_dictionaries(
        {"kind": st.just("mixture")},
        optional={"components": st.integers(1, 64), "linear_prediction": st.integers(0, 64)},
    ),
)
local = st.one_of(
    st.none(),
    st.fixed_dictionaries({"kind": st.just("notes"), "hop_length": st.sampled_from([1, 40, 80])}),
    st.fixed_dictionaries(
        {"kind": st.just("features"), "hop_length": st.just(80), "width": st.integers(1, 9)},
        optional={"upsample": st.sampled_from([[], [2, 4], [80]])},
    ),
)
trees = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,8}", fullmatch=True),
        "seed": st.integers(0, 2**32 - 1),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "path": st.one_of(st.none(), st.text(min_size=1)),
                "label_pattern": st.sampled_from([None, "folder", "{digit}_{speaker}_{take}"]),
                "split": st.fixed_dictionaries({"valid": st.one_of(st.floats(0, 0.5), st.just("take=0-4"))}),
                "augment": st.fixed_dictionaries({"gain_db": st.floats(0, 40), "polarity": st.booleans()}),
            },
        ),
        "codec": st.sampled_from(
            [{"kind": "mulaw"}, {"levels": 64}, {"kind": "sashimi", "quantization": "linear"}]
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "dilations": st.lists(st.integers(1, 512), min_size=1, max_size=9),
                "label_fields": st.lists(st.text(), max_size=3),
                "dropout": st.floats(0, 1, exclude_max=True),
                "head": head,
                "local": local,
            },
        ),
        "optimizer": st.fixed_dictionaries(
            {}, optional={"learning_rate": st.floats(1e-30, 0.99), "b2": st.floats(0, 0.999)}
        ),
        "training": st.fixed_dictionaries({"steps": st.integers(101, 10**9)}),
    },
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tree=trees)
def test_the_resolved_configuration_comes_back_identically(tree):
    tree.setdefault("data", {})["crop"] = 8000  # a multiple of every hop above
    config = resolve(tree)
    assert resolve(yaml.safe_load(dump_config(config))) == config
    assert resolve(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    overrides = [f"{key}={yaml.safe_dump(value)}" for key, value in tree.items()]
    assert resolve({}, overrides) == config


def test_a_resolved_file_loads_identically(tmp_path):
    config = resolve({}, ["optimizer.learning_rate=3e-5", "model.head={kind: mixture, components: 3}"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_resolving_leaves_the_tree_alone():
    tree = {"codec": {"levels": 64}, "model": {"head": {"kind": "mixture"}}}
    before = json.dumps(tree)
    resolve(tree, ["model.head.components=3", "codec.levels=32"])
    assert json.dumps(tree) == before


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 1


# --- overrides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("2.5E-3", 2.5e-3), ("1.e-2", 0.01), (".5", 0.5), ("0.001", 0.001)]
)
def test_numbers_are_numbers(tmp_path, text, number):
    assert resolve({}, [f"optimizer.learning_rate={text}"]).optimizer.learning_rate == number
    (tmp_path / "a.yaml").write_text(f"optimizer: {{learning_rate: {text}}}\n")
    assert load_config(tmp_path / "a.yaml").optimizer.learning_rate == number


def test_text_that_looks_like_a_number_can_stay_text():
    assert resolve({}, ["data.path='1e-4'"]).data.path == "1e-4"
    assert resolve({}, ["data.path=a.b=c"]).data.path == "a.b=c"


def test_later_overrides_win_over_earlier_ones_and_over_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\nmodel: {cycles: 3}\n")
    config = load_config(tmp_path / "a.yaml", ["seed=2", "seed=3"])
    assert (config.seed, config.model.cycles, config.model.kernel_size) == (3, 3, 2)


def test_a_section_with_one_key_takes_its_usual_kind():
    assert resolve({}, ["codec.levels=64"]).codec.kind == "mulaw"
    assert resolve({}, ["model.head.kind=mixture"]).model.head.components == 10
    assert resolve({}, ["model.local={kind: notes, hop_length: 64}"]).model.local.harmonics == 2


# --- what is refused, and how it is said --------------------------------------------------------------------


def message(overrides, tree=None) -> str:
    with pytest.raises(WavegenError) as caught:
        resolve(tree or {}, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("optimiser", "optimizer"),
        ("optimizer.lerning_rate", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("data.batchsize", "data.batch_size"),
        ("model.channels", "model.local.channels"),
        ("model.residual_chanels", "model.residual_channels"),
        ("training.mesh.fsd", "training.mesh.fsdp"),
        ("codec.level", "codec.levels"),
        ("data.augment.input_nois", "data.augment.input_noise"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, near):
    text = message([f"{key}=1"])
    assert text.startswith(f"unknown configuration key '{key}'; did you mean ")
    assert near in text


def test_an_unknown_section_is_named_alone():
    assert message(["optimiser.learning_rate=1"]).startswith(
        "unknown configuration key 'optimiser'; did you mean"
    )


def test_a_key_near_nothing_lists_what_there_is():
    assert message(["zzz=1"]).startswith(
        "unknown configuration key 'zzz'; known here: version, name, seed, data,"
    )


def test_a_key_of_another_kind_is_refused():
    assert "unknown configuration key 'model.head.components'" in message(["model.head.components=3"])
    assert "unknown configuration key 'model.local.width'" in message(["model.local={kind: notes, width: 3}"])


@pytest.mark.parametrize(
    ("key", "setup", "kind", "limit"),
    LIMITS,
    ids=[f"{k} {t.__name__} {v} {' '.join(s)}" for k, s, t, v in LIMITS],
)
def test_every_limit_is_kept_and_its_message_names_the_key_and_the_value(key, setup, kind, limit):
    outside = {Ge: limit - 1, Gt: limit, Le: limit + 1, Lt: limit}[kind]
    text = message([*setup, f"{key}={outside}"])
    assert text.startswith(f"configuration error at {key}: Input should be ")
    assert str(limit).rstrip("0").rstrip(".") in text
    assert text.endswith(f"(got {outside!r})")


def test_every_number_has_a_limit():
    assert not {key for key, field, _ in fields() if field.annotation in (int, float) and not limits(field)}


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("seed=one", "configuration error at seed: Input should be a valid integer"),
        ("training.steps=1.5", "configuration error at training.steps: Input should be a valid integer"),
        (
            "optimizer.clip_norm=.inf",
            "configuration error at optimizer.clip_norm: Input should be a finite number",
        ),
        ("optimizer.learning_rate=.nan", "configuration error at optimizer.learning_rate: Input should be"),
        ("training.precision=half", "Input should be 'float32' or 'bfloat16' (got 'half')"),
        ("data.backend=zip", "Input should be 'memmap' or 'array_record' (got 'zip')"),
        ("name=a/b", "configuration error at name: String should match pattern"),
        ("model.dilations=[]", "configuration error at model.dilations: "),
        (
            "model.dilations=[1, x]",
            "configuration error at model.dilations.1: Input should be a valid integer",
        ),
        ("model.dilations=[1, 0]", "configuration error at model: dilations must be at least 1, got (1, 0)"),
        (
            "model={cycles: 16, dilations: [1,2,4,8,1,2,4,8,1,2,4,8,1,2,4,8,16]}",
            "17 dilations x 16 cycles is over 256",
        ),
        ("codec.kind=mp3", "configuration error at codec: "),
        (
            "codec.levels=1",
            "configuration error at codec.levels: Input should be greater than or equal to 4 (got 1)",
        ),
        ("model.local.hop_length=80", "configuration error at model.local: "),
        (
            "model.local={kind: features, width: 3, hop_length: 80, upsample: [3]}",
            "upsample factors (3,) must divide hop_length 80",
        ),
        (
            "model.local={kind: features, width: 3, hop_length: 80, upsample: [0]}",
            "upsample factors (0,) must divide hop_length 80",
        ),
        ("data=5", "configuration error at data: "),
        ("seed", "an override is written key=value, for example optimizer.learning_rate=1e-3; got 'seed'"),
        ("=5", "an override is written key=value"),
        ("model.dilations=[1, 2", "the value of 'model.dilations' is not valid YAML: "),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_place(override, text):
    assert text in message([override])


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["codec.kind=linear"], "a softmax over 65536 levels is too wide; use model.head.kind=mixture"),
        (
            ["codec.kind=linear", "model.head.kind=mixture"],
            "an embedding of 65536 levels is too large; use model.input=scalar",
        ),
        (["optimizer.accumulate=3"], "batch_size 8 must be a multiple of accumulate 3"),
        (
            ["model.local={kind: notes, hop_length: 80}"],
            "crop 8192 must be a multiple of local.hop_length 80",
        ),
        (["training.sample_every=70"], "sample_every 70 must be a multiple of evaluate_every 500"),
        (["data.split={valid: 0.6, test: 0.6}"], "expected split fractions in [0, 1] of sum at most 1"),
        (["data.label_pattern='{a}{b}'"], "configuration error at data: "),
        (["data.split.valid=soon"], "expected a fraction, labels ('take=0-4') or a path pattern"),
    ],
)
def test_parts_that_do_not_fit_are_refused(overrides, text):
    assert text in message(overrides)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (100, 50), (101, 100)])
def test_a_run_that_ends_within_its_warm_up_rises_over_half_of_its_steps(steps, warmup):
    assert resolve({}, [f"training.steps={steps}"]).warmup_steps == warmup


def test_parts_that_fit_again_are_accepted():
    config = resolve({}, ["codec.kind=linear", "model.head.kind=mixture", "model.input=scalar"])
    assert (config.codec.levels, math.log2(config.codec.levels)) == (65536, 16)


def test_a_version_from_the_future_says_what_to_do():
    assert message([f"version={VERSION + 1}"]) == (
        f"the configuration has version {VERSION + 1}, this wavegen reads versions 1 to {VERSION}; update wavegen"
    )


def test_a_missing_file_names_the_nearest():
    path = CONFIGS[0].with_name("quikstart.yaml")
    with pytest.raises(
        WavegenError, match=r"no configuration file .*quikstart\.yaml; did you mean .*quickstart\.yaml"
    ):
        load_config(path)
    with pytest.raises(WavegenError, match=r"no configuration file nowhere/a\.yaml; `wavegen configs` lists"):
        load_config("nowhere/a.yaml")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a: [1, 2", "a.yaml is not valid YAML: "),
        ("- 1\n- 2\n", "a.yaml must hold key: value pairs, got list"),
        ("\x00", "a.yaml is not valid YAML: "),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, text):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(WavegenError) as caught:
        load_config(tmp_path / "a.yaml")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "a.yaml") == Config()
