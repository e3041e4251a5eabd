"""The files of the page's texts."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
from voxport.contract.options import stated_options
from voxport.entrypoints import demo
from voxport.entrypoints.demo.languages import Languages

LANGUAGES = Languages.read()
ENGLISH = LANGUAGES.texts["en"].by_key
SOURCES = [path for path in Path(*demo.__path__).rglob("*") if path.suffix in (".py", ".js")]


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_the_page_is_in_english_german_and_spanish() -> None:
    assert set(LANGUAGES.texts) >= {"en", "de", "es"}


@pytest.mark.parametrize("tag", LANGUAGES.texts)
def test_a_language_has_the_keys_and_placeholders_of_english(tag: str) -> None:
    texts = LANGUAGES.texts[tag].by_key
    assert list(texts) == list(ENGLISH)
    assert {key: placeholders(text) for key, text in texts.items()} == {
        key: placeholders(text) for key, text in ENGLISH.items()
    }


@pytest.mark.parametrize("tag", LANGUAGES.texts)
def test_texts_are_without_markup(tag: str) -> None:
    """They are put into HTML, and into its attributes, as they are."""
    assert [text for text in LANGUAGES.texts[tag].by_key.values() if set('<>&"') & set(text) or not text.strip()] == []


@pytest.mark.parametrize("tag", sorted(set(LANGUAGES.texts) - {"en"}))
def test_gradio_has_the_language_too(tag: str) -> None:
    """It falls back to English for all texts in others."""
    import gradio

    assert list(Path(gradio.__file__).parent.glob(f"templates/frontend/assets/{tag}-*.js"))


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used = set(re.findall(r'(?:say|count)\(\s*"([\w.]+)"', code))
    used |= set(re.findall(r'"((?:stage|result|viewer)\.\w+)"', code)) - {"viewer.css"}
    used |= {f"page.{key}" for key in re.findall(r'_later\("(\w+)"\)', code)}
    used |= {f"viewer.{name}" for name in ("axial", "coronal", "sagittal", "error_401", "error_404", "error_410")}
    for name, stated in stated_options().items():
        has_form = not stated.choices and not stated.is_whole
        used |= {f"page.{name}", f"page.{name}_info", *([f"page.{name}_form"] if has_form else [])}
    assert used == {key.removesuffix("_one") for key in ENGLISH}


def test_english_says_of_an_option_what_the_command_line_says() -> None:
    for name, stated in stated_options().items():
        assert ENGLISH[f"page.{name}"] == name.capitalize()
        assert ENGLISH[f"page.{name}_info"] == stated.description
        assert ENGLISH.get(f"page.{name}_form", stated.metavar) == stated.metavar


@pytest.mark.parametrize(
    ("tag", "language"), [("de", "de"), ("de-AT", "de"), ("es-MX", "es"), ("en-GB", "en"), ("fr", "en"), ("", "en")]
)
def test_the_nearest_language_is_taken(tag: str, language: str) -> None:
    assert LANGUAGES.of(tag) is LANGUAGES.texts[language]


@pytest.mark.parametrize(
    ("tag", "number", "text"),
    [("en", 1, "1 tile"), ("en", 2, "2 tiles"), ("de", 1, "1 Kachel"), ("es", 0, "0 teselas")],
)
def test_one_thing_is_singular(tag: str, number: int, text: str) -> None:
    assert LANGUAGES.of(tag).count("tiles", number) == text
