"""Languages: every message has its translation, and what a user reads is in one language."""

import ast
import csv
import inspect
import io
import itertools
import json
import os
import pickle
import re
import sys
from string import Formatter
from typing import Literal, get_args, get_origin, get_type_hints

import click
import pytest
from babel.messages.mofile import write_mo
from click.testing import CliRunner

from bench.config import BenchConfig
from cache.errors import CacheError
from cache.messages import Message, UserError, joined, listed, message
from cache.remote.folder import FolderConfig
from cache.spec import CacheSpec
from cli import main
from console.catalogue import ROOT, error_names, extract, po_path, read, source_files
from console.language import ENGLISH, LANGUAGES, _, chosen, ngettext, plain, shows_marks, speaking, translated
from export.config import ExportConfig
from loader.batch import LoaderConfig
from model.loss import LOSSES
from model.network import NetworkConfig
from predict.config import PredictConfig
from preprocess.annotations.table import load_persons
from preprocess.build.build import BuildConfig
from preprocess.build.changes import SplitChanges, stale_reasons
from preprocess.check.quality import QualityThresholds
from preprocess.errors import DatasetError
from preprocess.synth.dataset import SynthConfig
from train.config import TrainConfig
from train.evaluation.result import EvalConfig
from train.profiles import PROFILES

OTHERS = [name for name in LANGUAGES if name != ENGLISH]


def texts(entry):
    """The message and the translations of an entry, in pairs."""
    ids = (entry.id,) if isinstance(entry.id, str) else entry.id
    strings = (entry.string,) if isinstance(entry.string, str) else entry.string
    return [(ids[min(number, len(ids) - 1)], string) for number, string in enumerate(strings)]


def placeholders(text):
    if "%s" in text or "%d" in text:
        return re.findall("%[sd]", text)
    return sorted({name for _words, name, _spec, _conversion in Formatter().parse(text) if name})


@pytest.fixture(scope="module")
def messages():
    """The entries of all messages of the source."""
    return list(extract())


@pytest.fixture(scope="module")
def calls():
    """All calls of the source that have a template: the file, and the call as Python's own parser gives it."""
    marks = {"_", "message", "ngettext", *error_names(source_files())}
    return [
        (path, node)
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in marks
    ]


@pytest.mark.parametrize("name", OTHERS)
def test_every_message_of_the_source_is_translated(messages, name):
    wanted = {entry.id for entry in messages if entry.id}
    entries = [entry for entry in read(name) if entry.id]
    assert {entry.id for entry in entries} == wanted, "run `make messages`"
    for entry in entries:
        assert not entry.fuzzy, entry.id
        for text, translation in texts(entry):
            assert translation, f"no translation of {text!r}: add it to {po_path(name)}, then `make messages`"
            assert placeholders(translation) == placeholders(text), text
            assert re.match(r"\s*", translation)[0].lstrip("\n") == re.match(r"\s*", text)[0].lstrip("\n") or (
                translation.startswith("\n")  # the guide breaks an epoch's line
            ), text


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_compiled_is_the_catalogue(name):
    compiled = io.BytesIO()
    write_mo(compiled, read(name))
    assert compiled.getvalue() == po_path(name).with_suffix(".mo").read_bytes(), "run `make messages`"


def filled(template, values):
    """What `str.format` makes of a template, part by part; numbers for the specs of numbers."""
    return template.format(**values)


def sample(template, value):
    """Values for a template: a number where its spec wants one, else `value`."""
    parts = [(name, spec) for _words, name, spec, _conversion in Formatter().parse(template) if name]
    return {name: 1234 if any(spec for other, spec in parts if other == name) else value for name, spec in parts}


@pytest.mark.parametrize("name", OTHERS)
def test_a_message_is_translated_with_its_values(name):
    """All templates; a name that is a message of its own stays as it is, a message within a message does not."""
    translations = {entry.id: entry.string for entry in read(name) if isinstance(entry.id, str) and entry.id}
    assert len(translations) > 1000
    inner = message("the image file is missing")
    with speaking(name):
        for template, translation in translations.items():
            if "%s" in template or not placeholders(template):
                continue
            for value in ("the image file is missing", "threads", "/a b/{c}"):
                values = sample(template, value)
                assert translated(Message(template, **values)) == translation.format(**values)
            values = sample(template, inner)
            meant = {key: translations[inner] if each is inner else each for key, each in values.items()}
            assert translated(Message(template, **values)) == translation.format(**meant)


def test_a_message_is_a_string_and_survives_what_strings_do():
    with pytest.raises(CacheError) as caught:
        CacheSpec(side=250)
    text = str(caught.value)
    assert text == "side=250 is not a multiple of 32; use 224 or 256"
    error = pickle.loads(pickle.dumps(UserError("{text} ({names})", text=text, names=listed(["a", "b", "c"], "or"))))
    assert str(error) == f"{text} (a, b or c)"
    assert json.loads(json.dumps([str(error)])) == [str(error)]
    with speaking("es"):
        assert translated(error) == "side=250 no es múltiplo de 32; usa 224 o 256 (a, b o c)"
        assert translated(joined("; ", [text, "x"])) == "side=250 no es múltiplo de 32; usa 224 o 256; x"
        assert translated(UserError("{error}", error=FileNotFoundError(2, "No such file or directory", "q"))) == (
            "[Errno 2] no existe el archivo o la carpeta: 'q'"
        )
        assert translated("its checksum differs") == "su suma de verificación no coincide"
        assert translated("a {b}") == "a {b}"
    assert translated(error) == str(error)


def settings_and_choices():
    """Names of all settings and choices of the configurations, and of all options of the commands."""
    names = set()
    for config in (
        *(TrainConfig, NetworkConfig, LoaderConfig, CacheSpec, FolderConfig, BuildConfig, PredictConfig, EvalConfig),
        *(ExportConfig, BenchConfig, SynthConfig, QualityThresholds),
    ):
        for name, kind in get_type_hints(config).items():
            names |= {name, *choices(kind)}
    for command in main.commands.values():
        for parameter in command.params:
            names |= {*parameter.opts, *getattr(parameter.type, "choices", ())}
    return sorted(names | {f"network.{field}" for field in get_type_hints(NetworkConfig)} | set(PROFILES) | set(LOSSES))


def choices(kind):
    if get_origin(kind) is Literal:
        return get_args(kind)
    return [name for each in get_args(kind) for name in choices(each)]


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_settings_and_choices_are_never_translated(name):
    """As values of any template, and as texts of their own."""
    names = settings_and_choices()
    assert {"threads", "side", "order", "global", "--resume", "none", "unet", "rtx4090", "bce_dice"} <= set(names)
    turning = itertools.cycle(names)
    with speaking(name):
        assert [translated(each) for each in names] == names
        for entry in read(name):
            if isinstance(entry.id, str) and "%s" not in entry.id:
                values = sample(entry.id, next(turning))
                said = translated(Message(entry.id, **values))
                assert all(value in said for value in values.values() if isinstance(value, str))


@pytest.mark.parametrize("name", ["memory copy", "this machine", "its checksum differs", "threads"])
def test_paths_are_never_translated(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("train", "--cache", name, "--lang", "es", code=1).stderr
    assert said.startswith(f"error: {name} no contiene ninguna caché terminada")
    (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / name / "checkpoints" / "last_model.pth").write_bytes(b"")


def test_the_list_of_all_settings_is_the_same_in_both_languages():
    english, spanish = (run("train", "--set", "epoch=3", "--lang", each, code=1).stderr for each in ("en", "es"))
    listed = english.partition(" All of them: ")[2].strip()
    assert "threads" in listed.split(", ")
    assert spanish.partition(" Todos son: ")[2].strip() == listed


def test_no_message_is_lost_in_an_f_string(messages, calls):
    """Babel does not look into those, nor into deep nests of calls; Python's own parser does."""
    found = {node.args[0].value for _path, node in calls if node.args and isinstance(node.args[0], ast.Constant)}
    known = {each for entry in messages for each in ([entry.id] if isinstance(entry.id, str) else entry.id)}
    assert len(found) > 900
    assert found - {""} <= known


def test_errors_are_raised_with_templates(calls):
    """An f-string has lost its template, and would be English in every language."""
    assert {"CacheError", "DatasetError", "TrainConfigError"} <= {node.func.id for _path, node in calls}
    plain = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in calls
        if any(isinstance(argument, ast.JoinedStr | ast.BinOp) for argument in node.args)
    ]
    assert not plain


def run(*arguments, code=0, environ=None, answer=None):
    result = CliRunner(catch_exceptions=False, env=environ).invoke(main, list(map(str, arguments)), input=answer)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("name", OTHERS)
def test_all_of_the_help_is_translated(name):
    entries = {entry.id for entry in read(name)}
    for command in (main, *main.commands.values()):
        assert inspect.cleandoc(command.help) in entries
        assert command.short_help is None or command.short_help in entries
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert inspect.cleandoc(parameter.help) in entries, parameter.help


def test_help_in_spanish():
    said = run("quick", "--help", "--lang", "es").stdout
    assert said.startswith("Uso: main quick [OPCIONES]\n\n  Comprueba que están todos los archivos ")
    assert "--lang [en|es]" in said
    assert "[por defecto: COCO si no hay" in " ".join(said.split())
    assert "Muestra esta ayuda y termina." in said
    everything = run("--lang=es", "--help").stdout
    assert "Opciones:\n" in everything
    assert "Comandos:\n" in everything
    assert "cuantas veces quieras, a la velocidad de la memoria\n" in everything
    assert "Usage: main quick [OPTIONS]" in run("quick", "--help").stdout


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "text", ['{"images": [], }', '{"images": [1 2]}', "{images: []}", '{"images": "C:\\p"}', "{} x"]
)
def test_what_msgspec_says_of_edited_json_is_translated(name, text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DatasetError) as error:
        load_persons(path)
    reason = error.value.args[0].values["looks"].values["reason"]
    with speaking(name):
        assert translated(reason) != reason


@pytest.mark.parametrize(
    ("arguments", "environ", "wanted"),
    [
        (["quick", "--lang", "es"], {"MASKCACHE_LANG": "en", "LANG": "en_US.UTF-8"}, "es"),
        (["--lang=es", "quick"], {}, "es"),
        (["quick", "--lang", "xx"], {"LC_ALL": "es_PE.UTF-8"}, "es"),
        (["predict", "--", "--lang", "es"], {}, "en"),
        (["predict", "--out", "--lang"], {}, "en"),
        ([], {"MASKCACHE_LANG": "es", "LC_ALL": "en_US.UTF-8"}, "es"),
        ([], {"LANG": "es_ES.UTF-8"}, "es"),
        ([], {"LANG": "es_ES.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ([], {"LC_ALL": "C", "LANG": "es_ES.UTF-8"}, "en"),
        ([], {"LANGUAGE": "de:es", "LANG": "C.UTF-8"}, "es"),
        ([], {"LANG": "fr_FR.UTF-8"}, "en"),
        ([], {}, "en"),
    ],
)
def test_which_language(arguments, environ, wanted):
    assert chosen(arguments, environ) == wanted


def test_a_language_that_there_is_not():
    assert "'fr' is not one of 'en', 'es'" in run("quick", "--lang", "fr", code=2).stderr
    unknown = {"MASKCACHE_LANG": "fr", "LANGUAGE": "es"}
    said = run("quick", environ=unknown, code=2).stderr
    assert "MASKCACHE_LANG='fr' no es un idioma de maskcache; usa en o es" in said


def test_a_language_ends_with_its_command(tmp_path):
    run("quick", "--coco", tmp_path, "--lang", "es", code=1)
    assert _("Stopped.") == "Stopped."
    with speaking("es"):
        assert ngettext("{count:,} shard", "{count:,} shards", 2) == "{count:,} fragmentos"
        with speaking(ENGLISH):
            assert _("Stopped.") == "Stopped."
        assert _("Stopped.") == "Detenido."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "x"], "Error: Valor no válido para '--epochs': 'x' no es un valor de tipo integer."),
        (["preprocess", "--fit", "crop"], "Valor no válido para '--fit': 'crop' no es uno de 'letterbox', 'stretch'."),
        (["predict"], "Falta el argumento 'INPUT...'."),
        (["export", "--checkpoint", "x"], "Falta la opción '--out'."),
        (["quick", "--cocco", "x"], "No existe la opción '--cocco'. ¿Querías decir '--coco'?"),
        (["quik"], "No existe el comando 'quik'. ¿Querías decir 'quick'?"),
        (["quick", "x", "y"], "Sobran argumentos (x y)"),
        (["verify", "--repair"], "--repair necesita --cache, y --coco para volver a crear los fragmentos dañados"),
        (["--yes", "quick"], "--yes es para maskcache sin comando"),
    ],
)
def test_errors_of_the_command_line_in_spanish(arguments, message):
    said = run("--lang", "es", *arguments, code=2).stderr
    assert message in said
    assert said.startswith("Uso: main ")
    assert " --help' para ver la ayuda.\n" in said


def test_an_error_without_a_usage_line_in_spanish():
    said = run("train", "--epochs", environ={"MASKCACHE_LANG": "es"}, code=2).stderr
    assert said == "Error: La opción '--epochs' necesita un argumento.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preprocess", "--side", "250"], "side=250 no es múltiplo de 32; usa 224 o 256"),
        (["preprocess", "--splits", "train,test"], "splits=train, test no existe; usa train y val"),
        (
            ["train", "--cache", "none"],
            "none no contiene ninguna caché terminada (falta index.json); créala con: cli.py",
        ),
        (["train", "--profile", "rtx5090"], "el perfil 'rtx5090' no existe; usa uno de rtx4090, "),
        (["train", "--profile", "cpu", "--width", "12"], "width=12 no es un múltiplo positivo de 8; usa 8 o 16"),
        (["train", "--set", "epoch=3"], "'epoch' en --set no es un ajuste; ¿es epochs? Todos son: accumulation, "),
        (["analyze", "--coco", "none"], "none está vacía o falta; indica en --coco la carpeta de un dataset, o "),
        (["bench", "--compare", "a", "b"], "falta a; un informe se escribe con: cli.py bench --json a"),
        (["train", "--config", "none.toml"], "no se puede leer none.toml: no existe el archivo o la carpeta"),
    ],
)
def test_errors_from_below_in_spanish(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run(*arguments, "--lang", "es", code=1).stderr
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A synthetic dataset and its cache, made in Spanish, with one photo cut short."""
    root = tmp_path_factory.mktemp("lenguas")
    said = run("synth", root / "coco", "--images", 30, "--lang", "es")
    assert "30 imágenes en " in said.stdout
    assert "Dibujando: 30/30 imágenes" in said.stderr
    photo = next((root / "coco" / "train2017").glob("*.jpg"))
    photo.write_bytes(photo.read_bytes()[:500])
    said = run("preprocess", "--coco", root / "coco", "--out", root / "cache", "--side", 64, "--lang", "es").stdout
    assert f"  rechazada train/{photo.name}: el JPEG está dañado: el archivo termina antes de tiempo\n" in said
    return root, photo.name


def test_what_has_changed_in_spanish():
    change = SplitChanges(
        **{"split": "train", "damaged": 0, "shards": 1, "stale_shards": 1, "stale_images": 6, "dropped_shards": 0},
        new=("a.jpg",),
        gone=("b.jpg", "c.jpg"),
        photos=("d.jpg",),
        annotations=("e.jpg", "f.jpg"),
    )
    with speaking("es"):
        assert [translated(reason) for reason in stale_reasons(change)] == [
            "train: 1 imagen de nueva aparición en el dataset (a.jpg)",
            "train: 2 imágenes fuera ya del dataset (b.jpg, ...)",
            "train: 1 imagen con otro archivo que antes (d.jpg)",
            "train: 2 imágenes con otras anotaciones (e.jpg, ...)",
        ]


def test_quick_in_the_words_of_the_guide(made):
    root, _photo = made
    coco = root / "coco"
    said = run("quick", "--coco", coco, "--lang", "es").stdout
    file = coco / "annotations" / "person_keypoints_train2017.json"
    size = f"{file.stat().st_size / 1000:.1f} kB"
    assert said.startswith("=== VERIFICACIÓN RÁPIDA DE ESTRUCTURA COCO ===\n\n")
    for line in (
        f"✅ Directorio principal encontrado: {coco}",
        f"✅ Directorio de anotaciones encontrado: {coco}/annotations",
        f"✅ Anotaciones de entrenamiento encontradas: {file} ({size})",
        "✅ Directorio train2017 encontrado con 26 imágenes",
        "✅ Estructura COCO verificada correctamente!",
        "   ✅ Todos los archivos necesarios están presentes",
    ):
        assert f"{line}\n" in said


def test_analyze_in_the_words_of_the_guide(made, tmp_path):
    root, _photo = made
    arguments = ["analyze", "--coco", root / "coco", "--picture", tmp_path / "a.png"]
    counted = json.loads(run(*arguments, "--json").stdout)["coco"]["train"]
    said = run(*arguments, "--lang", "es").stdout
    assert said.startswith("=== ANÁLISIS DE ANOTACIONES COCO: train ===\n\n📈 Estadísticas generales:\n")
    for line in (
        f"   - Total de imágenes: {counted['images']:,}",
        f"   - Total de anotaciones: {counted['annotations']:,}",
        f"   - Anotaciones de personas válidas: {counted['valid_persons']:,}",
        f"   - Imágenes con personas válidas: {counted['images_with_valid_persons']:,}",
        f"   - Promedio de personas por imagen: {counted['persons_per_image_mean']:.2f}",
        f"   - Máximo de personas en una imagen: {counted['persons_per_image_max']:,}",
        "📏 Distribución de tamaños (área):",
        f"   - Área promedio: {counted['area']['mean']:,.0f} píxeles²",
        f"   - Área mínima: {counted['area']['minimum']:,.0f} píxeles²",
        f"   - Área máxima: {counted['area']['maximum']:,.0f} píxeles²",
        f"   - Mediana: {counted['area']['median']:,.0f} píxeles²",
        "✅ Análisis completado. Dataset listo para el preprocesamiento.",
    ):
        assert f"{line}\n" in said


def test_train_in_the_words_of_the_guide(made, tmp_path):
    root, _photo = made
    out = tmp_path / "run"
    network = ["--profile", "cpu", "--width", 8, "--no-compile", "--batch-size", 8]
    said = run("train", "--cache", root / "cache", "--out", out, *network, "--epochs", 1, "--lang", "es").stdout
    assert said.startswith("🚀 INICIANDO ENTRENAMIENTO U-NET\n================================\n\n📊 Configuración:\n")
    for pattern in (
        r"   - Batch Size: 8\n   - Épocas: 1\n   - Learning Rate: 0\.001 \(cosine_annealing\)\n",
        r"   - Dispositivo: cpu, ",
        r"   - Nota: se usa el lado de la caché, 64, no el 256 del perfil cpu\n",
        r"📈 Época 1/1:\n   Train - Loss: \d\.\d{4}, Acc: \d\.\d{4}\n   Val - Loss: ",
        r"\n   Val - Loss: \d\.\d{4}, IoU: \d\.\d{4}, Dice: \d\.\d{4}",
        r"\n   ⏱️ Tiempo: [\dm .]+s, ",
        r"🎉 ¡Entrenamiento completado!\n   📊 Mejor IoU: \d\.\d{4} \(Época 1\)",
        rf"   💾 Modelo guardado: {re.escape(str(out))}/checkpoints/best_model\.pth\n",
    ):
        assert re.search(pattern, said), pattern
    # What programs read is English.
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        assert "train_loss" in next(csv.reader(file))
    assert "learning rate" in next((out / "logs").glob("training_*.log")).read_text(encoding="utf-8")
    assert (
        "ya contiene un entrenamiento"
        in run(*("train", "--cache", root / "cache", "--out", out, *network, "--lang", "es"), code=1).stderr
    )


def test_what_programs_read_stays_english(made, tmp_path):
    root, photo = made
    rejected = json.loads((root / "cache" / "train" / "rejected.jsonl").read_text(encoding="utf-8"))
    assert rejected["reason"].startswith("the JPEG is damaged: ")
    both = ["--coco", root / "coco", "--cache", root / "cache", "--json"]
    assert run("quick", *both, "--lang", "es").stdout == run("quick", *both).stdout
    findings = json.loads(run("verify", *both, "--lang", "es", code=1).stdout)["coco"]["findings"]
    assert [finding["reason"] for finding in findings] == [rejected["reason"]]
    told = run("verify", "--coco", root / "coco", "--lang", "es", code=1).stdout
    assert f"❌ train/{photo}, imagen " in told
    assert ": el JPEG está dañado: " in told
    assert "❌ El dataset tiene problemas" in told


def test_asking_takes_the_answers_of_the_language(made, tmp_path, monkeypatch):
    from console.progress import confirmed

    asked = []

    def answers(*given):
        words = iter(given)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda text="": asked.append(text) or next(words))

    with speaking("es"):
        for word, meant in (("s", True), ("Sí", True), ("y", True), ("n", False), ("no", False), ("", False)):
            answers(word)
            assert confirmed("¿Entrenar?", default=False) is meant
        answers("quizá", "s")
        assert confirmed("¿Entrenar?", default=True)
    assert "¿Entrenar? [s/N]" in asked[0] + "".join(asked)


@pytest.mark.parametrize(
    ("environ", "encoding", "terminal", "shown"),
    [
        ({"TERM": "xterm-256color"}, "utf-8", True, True),
        ({"TERM": "xterm-256color"}, "utf-8", False, False),
        ({"TERM": "xterm-256color"}, "iso8859-1", True, False),
        ({"TERM": "linux"}, "utf-8", True, False),
        ({"TERM": "dumb"}, "UTF-8", True, False),
        ({"TERM": "dumb", "MASKCACHE_EMOJI": "1"}, "ascii", False, True),
        ({"TERM": "xterm", "MASKCACHE_EMOJI": "0"}, "utf-8", True, False),
    ],
)
def test_where_emoji_are_shown(environ, encoding, terminal, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream.isatty = lambda: terminal
    assert shows_marks(stream, environ) is shown


def test_plain_text_has_no_emoji(messages):
    assert plain("✅ Cache is sound") == "[ok] Cache is sound"
    assert plain("❌ {problem}") == "[x] {problem}"
    assert plain("⚠️  {photos} left out:") == "[!] {photos} left out:"
    assert plain("🖼️  Picture: {path}") == "Picture: {path}"
    assert plain("   📊 Best IoU | ⏱️ {time}, 3 × 4 ≥ 2, pixels² ★") == "   Best IoU | {time}, 3 × 4 ≥ 2, pixels² *"
    emoji = re.compile("[\u231a-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]")
    for entry in messages:
        for each in (entry.id,) if isinstance(entry.id, str) else entry.id:
            assert not emoji.search(plain(each)), each


def test_a_pipe_gets_plain_text_and_a_stream_that_cannot_show_a_sign_no_traceback(made, start_child):
    root, _photo = made
    environ = {**os.environ, "MASKCACHE_EMOJI": "", "MASKCACHE_LANG": "es", "PYTHONIOENCODING": "ascii"}
    child = start_child([sys.executable, "cli.py", "quick", "--coco", root / "coco"], env=environ)
    said, errors = child.communicate()
    assert child.returncode == 0, errors
    assert said.isascii()
    assert "[ok] Directorio principal encontrado: " in said
    assert "[ok] Directorio train2017 encontrado con 26 im?genes\n" in said
