"""Languages: every message has its translation, and what a user reads is in one language."""

import ast
import csv
import inspect
import io
import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import click
import pytest
from babel.messages.mofile import write_mo
from click.testing import CliRunner

from bench.config import BenchConfig
from cache.shard_folder import FolderConfig
from cache.spec import CacheSpec
from cli import main
from console.extraction.below import is_sentence
from console.extraction.catalogue import ROOT, SPEAKING, extract, po_path, read, source_files
from console.extraction.literal import is_text, templates
from console.extraction.spoken import MARKS, messages
from console.helptext import is_metavar, paragraphs, split_default
from console.language import ENGLISH, LANGUAGES, _, chosen, language, ngettext, sentences, speaking
from console.marks import plain, shows_marks
from console.sentences import CONJUNCTIONS, Placeholder, Recogniser, parse, translated
from export.config import ExportConfig
from loader.batch import LoaderConfig
from model.loss import LOSSES
from model.network import NetworkConfig
from predict.config import PredictConfig
from preprocess.build import BuildConfig
from preprocess.changes import SplitChanges, stale_reasons
from preprocess.quality import QualityThresholds
from preprocess.synth import SynthConfig
from train.config import TrainConfig
from train.evaluation.config import EvalConfig
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
    return sorted({part.name for part in parse(text) if isinstance(part, Placeholder)})


@pytest.mark.parametrize("name", OTHERS)
def test_every_message_of_the_source_is_translated(name):
    wanted = {(entry.context, entry.id) for entry in extract() if entry.id}
    entries = [entry for entry in read(name) if entry.id]
    assert {(entry.context, entry.id) for entry in entries} == wanted, "run `make messages`"
    for entry in entries:
        assert not entry.fuzzy, entry.id
        for message, translation in texts(entry):
            assert translation, f"no translation of {message!r}: add it to {po_path(name)}, then `make messages`"
            assert placeholders(translation) == placeholders(message), message
            assert re.match(r"\s*", translation)[0].lstrip("\n") == re.match(r"\s*", message)[0].lstrip("\n") or (
                translation.startswith("\n")  # the guide breaks an epoch's line
            ), message


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_compiled_is_the_catalogue(name):
    compiled = io.BytesIO()
    write_mo(compiled, read(name))
    assert compiled.getvalue() == po_path(name).with_suffix(".mo").read_bytes(), "run `make messages`"


@pytest.mark.parametrize("name", OTHERS)
def test_every_sentence_from_below_is_recognised(name):
    known = sentences(name)
    assert len(known) > 500
    recogniser = Recogniser(known)
    with speaking(name):
        conjunctions = {word: _(word) for word in CONJUNCTIONS}
        for template, translation in known.items():
            given = {
                part.name: sample(part, number)
                for number, part in enumerate(parse(template))
                if isinstance(part, Placeholder)
            }
            meant = {
                part.name: given[part.name].replace(f" {part.spec} ", f" {conjunctions.get(part.spec)} ")
                for part in parse(template)
                if isinstance(part, Placeholder)
            }
            assert recogniser.sentence(filled(template, given)) == filled(translation, meant)


def sample(place, number):
    """A value as it could be; nothing that is a sentence."""
    if place.quoted:
        return repr(f"value{number}")
    if place.spec in CONJUNCTIONS:
        return f"value{number} {place.spec} other{number}"
    return f"{1000 + number:,}" if place.spec else f"value{number}"


def filled(template, values):
    return "".join(part if isinstance(part, str) else values[part.name] for part in parse(template))


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
@pytest.mark.parametrize("length", [1, 5])
def test_names_of_settings_and_choices_are_never_translated(name, length):
    """In no sentence, one by one or as a list; each in many sentences."""
    names = settings_and_choices()
    assert {"threads", "side", "order", "global", "--resume", "none", "unet", "rtx4090", "bce_dice"} <= set(names)
    lists = (", ".join(itertools.islice(turning, length)) for turning in itertools.repeat(itertools.cycle(names)))
    recogniser = Recogniser(sentences(name))
    for each in names:
        assert recogniser.value(each).text == recogniser.sentence(each) == each
    for template in sentences(name):
        places = [part for part in parse(template) if isinstance(part, Placeholder)]
        free = {part.name for part in places if not (part.quoted or part.spec or part.name.endswith("_count"))}
        values = {part.name: sample(part, number) for number, part in enumerate(places)}
        values |= {each: next(lists) for each in sorted(free)}
        said = recogniser.sentence(filled(template, values))
        for each in itertools.chain(*(values[place].split(", ") for place in free)):
            assert each in said, template


@pytest.mark.parametrize("name", ["memory copy", "this machine", "its checksum differs", "threads"])
def test_paths_are_never_translated(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("train", "--cache", name, "--lang", "es", code=1).stderr
    assert said.startswith(f"error: {name} no contiene ninguna caché terminada")
    (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / name / "checkpoints" / "last_model.pth").write_bytes(b"")
    with speaking("es"):
        assert translated(f"{name} already holds a run; go on with --resume, or choose another --out").startswith(
            f"{name} ya contiene un entrenamiento"
        )
        said = f"{name} holds a cache made otherwise (category: {name}, not person); use another --out, or --force to "
        said = translated(f"{said}replace it")
        assert f"category: {name}, no person" in said


def test_the_list_of_all_settings_is_the_same_in_both_languages():
    english, spanish = (run("train", "--set", "epoch=3", "--lang", each, code=1).stderr for each in ("en", "es"))
    listed = english.partition(" All of them: ")[2].strip()
    assert "threads" in listed.split(", ")
    assert spanish.partition(" Todos son: ")[2].strip() == listed


PICTURES = ("html*.py", "histogram.py", "markdown.py", "quality_panels.py", "tier_*.py", "extraction/*.py")
"""Files of pictures and pages, which are English in every language, and of tools."""

NOT_SAID = re.compile(r"click\.(?!\w*Error)|option\b|re\.|gettext\.|Path")
"""Calls whose strings are not said: help is translated as a whole."""

CODE = re.compile(r"cli\.py |\d|<")


def test_what_commands_say_is_marked_for_translation():
    unmarked = []
    for path in source_files()[0]:
        if not any(path.match(f"console/{pattern}") for pattern in PICTURES) and path.parts[-2] != "webpage":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            unmarked += [f"{path.relative_to(ROOT)}:{line}: {text}" for line, text in spoken(tree)]
            marked = [call.args[0] for call in ast.walk(tree) if named(call) in ("_", "message") and call.args]
            assert not any(isinstance(text, ast.JoinedStr) for text in marked), f"an f-string within _(), in {path}"
    assert not unmarked, "\n".join(unmarked)


def named(node):
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def spoken(node):
    """Sentences outside `_` and its kin, in a tree."""
    if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return
    if isinstance(node, ast.Call) and (named(node) in MARKS or NOT_SAID.match(ast.unparse(node.func))):
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_HELP"):
        return
    if isinstance(node, ast.expr) and is_text(node, {}):
        found = [text for text in templates(node, {}) if is_sentence(text.strip()) and not CODE.match(text)]
        yield from ((node.lineno, text) for text in found)
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from spoken(child)


def run(*arguments, code=0, environ=None, answer=None):
    result = CliRunner(catch_exceptions=False, env=environ).invoke(main, list(map(str, arguments)), input=answer)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("name", OTHERS)
def test_all_of_the_help_is_translated(name):
    entries = {entry.id for entry in read(name)}
    for command in (main, *main.commands.values()):
        context = click.Context(command)
        for text in paragraphs(inspect.cleandoc(command.help or "")):
            assert text in entries
        assert command.short_help is None or command.short_help in entries
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                metavar = parameter.make_metavar(context)
                assert parameter.is_flag or not is_metavar(metavar) or metavar in entries, metavar
                text, default = split_default(parameter.help)
                assert text in entries, text
                assert not default or default in entries or default.startswith("COCO if"), default


def test_help_in_spanish():
    said = run("quick", "--help", "--lang", "es").stdout
    assert said.startswith("Uso: main quick [OPCIONES]\n\n  Comprueba que están todos los archivos")
    assert "--lang [en|es]" in said
    assert "[por defecto: COCO si no hay" in " ".join(said.split())
    assert "Muestra esta ayuda y termina." in said
    everything = run("--lang=es", "--help").stdout
    assert "Opciones:\n" in everything
    assert "Comandos:\n" in everything
    assert "cuantas veces quieras, a la velocidad de la memoria\n" in everything
    assert "Usage: main quick [OPTIONS]" in run("quick", "--help").stdout


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
    assert language() == ENGLISH
    with speaking("es"):
        assert ngettext("{count:,} shard", "{count:,} shards", 2) == "{count:,} fragmentos"
        with speaking(ENGLISH):
            assert _("Stopped.") == "Stopped."
        assert _("Stopped.") == "Detenido."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "x"], "Error: Valor no válido para '--epochs': 'x' no es un número entero."),
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
        (["preprocess", "--splits", "train,test"], "splits=('train', 'test') no existe; usa train y val"),
        (
            ["train", "--cache", "none"],
            "none no contiene ninguna caché terminada (falta index.json); créala con: cli.py",
        ),
        (["train", "--profile", "rtx5090"], "el perfil 'rtx5090' no existe; usa uno de rtx4090, "),
        (["train", "--profile", "cpu", "--width", "12"], "width=12 no es un múltiplo positivo de 8; usa 8 o 16"),
        (["train", "--set", "epoch=3"], "'epoch' en --set no es un ajuste; ¿es epochs? Todos son: accumulation, "),
        (["analyze", "--coco", "none"], "; descomprime annotations_trainval2017.zip en none, o apunta --coco a la "),
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


def test_values_that_are_sentences_are_translated_and_names_are_not():
    with speaking("es"):
        note = "native (the device is the CPU; threads read and augment faster than it can learn)"
        assert translated(note) == (
            "native (el dispositivo es la CPU; los hilos leen y aumentan más rápido de lo que ella aprende)"
        )
        stale = (
            "out holds a cache made otherwise (side: 256, not 384; fit: stretch, not letterbox); "
            "use another --out, or --force to replace it"
        )
        assert translated(stale) == (
            "out contiene una caché hecha de otra manera (side: 256, no 384; fit: stretch, no letterbox); "
            "usa otro --out, o --force para reemplazarla"
        )
        assert translated("unet 64, side 384, batch 8, 2 threads") == "unet 64, lado 384, batch 8, 2 hilos"
        named = "from here.jpg does not exist; name a file, a folder, a pattern, or - for standard input"
        assert translated(named).startswith("from here.jpg no existe; ")
        assert translated("Nothing that anybody knows; really") == "Nothing that anybody knows; really"
    assert translated(stale) == stale
    assert translated("its checksum differs", to="es") == "su suma de verificación no coincide"


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
    assert f"  rechazada train/{photo.name}: el JPEG está dañado: " in said
    return root, photo.name


def test_sentences_of_pieces_are_translated_as_a_whole():
    """Their pieces come from tables, where the extraction cannot see what they will be put together to."""
    change = SplitChanges(
        **{"split": "train", "damaged": 0, "shards": 1, "stale_shards": 1, "stale_images": 6, "dropped_shards": 0},
        new=("a.jpg",),
        gone=("b.jpg", "c.jpg"),
        photos=("d.jpg",),
        annotations=("e.jpg", "f.jpg"),
    )
    assert [translated(reason, to="es") for reason in stale_reasons(change)] == [
        "train: 1 imagen de nueva aparición en el dataset (a.jpg)",
        "train: 2 imágenes fuera ya del dataset (b.jpg, ...)",
        "train: 1 imagen con otro archivo que antes (d.jpg)",
        "train: 2 imágenes con otras anotaciones (e.jpg, ...)",
    ]
    verbs = set(re.findall(r'_do\("(\w+)"', (ROOT / "cache" / "storage.py").read_text(encoding="utf-8")))
    assert len(verbs) > 3
    repeated = "no (3 attempts in 9 s); check the network and the server, then run the same command again"
    for verb, reason in itertools.product(verbs, ("no; pip install x", repeated)):
        said = translated(f"s3://b/c cannot be {verb}: {reason}", to="es")
        assert re.match(r"no se puede \w+r s3://b/c: no(;| \(3 intentos )", said), said


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
    from console.confirm import confirmed

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


def test_plain_text_has_no_emoji():
    assert plain("✅ Cache is sound") == "[ok] Cache is sound"
    assert plain("❌ {problem}") == "[x] {problem}"
    assert plain("⚠️  {photos} left out:") == "[!] {photos} left out:"
    assert plain("🖼️  Picture: {path}") == "Picture: {path}"
    assert plain("   📊 Best IoU | ⏱️ {time}, 3 × 4 ≥ 2, pixels² ★") == "   Best IoU | {time}, 3 × 4 ≥ 2, pixels² *"
    emoji = re.compile("[\u231a-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]")
    for path in source_files()[0]:
        for _line, text in messages(path):
            for each in (text,) if isinstance(text, str) else text:
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


def test_the_packages_that_speak_are_those_of_the_source():
    assert {path.relative_to(ROOT).parts[0] for path in source_files()[0]} <= set(SPEAKING)
    below = {path.relative_to(ROOT).parts[0] for path in source_files()[1]}
    assert {"cache", "preprocess", "loader", "model", "train", "bench", "predict"} <= below
    assert Path("console") not in below
