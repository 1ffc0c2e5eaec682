"""Titles and captions in other languages than English: counted, found, hidden and said."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.corpus import load_corpus
from miner_diag.corpus.harvest import outline_query, page_captions
from miner_diag.corpus.hiding import located, longest_part, plain_letters
from miner_diag.corpus.languages import languages
from miner_diag.corpus.summary import language_note
from miner_diag.corpus.words import count_real_words, count_words, split_units
from tests.corpus.raw_files import RawPage, line, raw_pdf, song

# --- words


@pytest.mark.parametrize(
    ("text", "n_words"),
    [
        ("Sleep deprivation study", 3),
        ("软件包管理系统", 3.5),
        ("パッケージの管理", 3),
        ("การติดตั้งระบบ", 3.5),
        ("ການຕິດຕັ້ງ", 2.5),
        ("Debian 参考手册", 3),
        ("패키지 관리 도구", 3),
        ("हिन्दी भाषा का परिचय", 4),
        ("（安装系统）", 2),
        ("", 0),
    ],
)
def test_words_are_counted_in_every_script(text, n_words):
    assert count_words(text) == n_words


@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=60))
def test_words_between_blanks_are_counted_as_before(text):
    assert count_words(text) == len(text.split())
    assert split_units(text) == text.split()


@given(st.text(max_size=60))
def test_units_hold_every_letter_in_order(text):
    assert "".join(split_units(text)) == "".join(text.split())
    assert count_real_words(text) <= len(text)


@pytest.mark.parametrize(
    "title",
    [
        "软件包管理基础",
        "安装 Debian 系统",
        "パッケージ管理の基礎",
        "การติดตั้งระบบปฏิบัติการ",
        "ການຕິດຕັ້ງລະບົບ",
        "ការដំឡើងប្រព័ន្ធ",
        "စနစ်ထည့်သွင်းခြင်း",
        "패키지 관리 도구",
        "हिन्दी भाषा का परिचय",
        "מערכת ניהול חבילות",
        "إدارة حزم النظام",
        "Управление пакетами системы",
        "Διαχείριση πακέτων συστήματος",
        "Verwaltung von Paketen",
        "Quản lý gói phần mềm",
    ],
)
def test_a_title_that_says_something_is_a_query_in_every_script(title):
    assert outline_query(title) == title
    assert outline_query(f"3.1 {title}") == title


@pytest.mark.parametrize("title", ["安装", "概要", "はじめに", "บทนำ", "소개", "Введение", "Einleitung", "परिचय"])
def test_a_title_of_one_word_is_none_in_any_script(title):
    assert outline_query(title) is None


def test_a_part_of_a_title_without_blanks_is_found():
    assert plain_letters(longest_part("本章介绍软件包管理的工具", "软件包管理的基本工具") or "") == "软件包管理的"
    assert not located("软件包管理的基本工具", "完全不同的内容")


# --- captions

CAPTIONS = {
    "English": ("Figure 3: Average level of tides", "Table 2. Average level of tides"),
    "German": ("Abbildung 3: Mittlere Höhe der Gezeiten", "Tabelle 2: Mittlere Höhe der Gezeiten"),
    "German, short": ("Abb. 3.1: Mittlere Höhe der Gezeiten", "Tab. 2 – Mittlere Höhe der Gezeiten"),
    "French": ("Figure 3 : Niveau moyen des marées", "Tableau 2 – Niveau moyen des marées"),
    "Spanish": ("Figura 3. Nivel medio de las mareas", "Tabla 2: Nivel medio de las mareas"),
    "Italian": ("Figura 3: Livello medio delle maree", "Tabella 2. Livello medio delle maree"),
    "Portuguese": ("Figura 3: Nível médio das marés", "Quadro 2: Nível médio das marés"),
    "Dutch": ("Figuur 3: Gemiddelde hoogte van getijden", "Tabel 2: Gemiddelde hoogte van getijden"),
    "Swedish": ("Figur 3: Tidvattnets höjd i alla hamnar", "Tabell 2: Tidvattnets höjd i alla hamnar"),
    "Finnish": (
        "Kuva 3: Vuoroveden keskikorkeus kaikissa satamissa",
        "Taulukko 2: Vuoroveden korkeus kaikissa satamissa",
    ),
    "Polish": ("Rysunek 3: Średni poziom pływów morskich", "Rys. 2. Średni poziom pływów morskich"),
    "Czech": ("Obrázek 3: Průměrná výška mořského přílivu", "Tabulka 2: Průměrná výška mořského přílivu"),
    "Russian": ("Рисунок 3. Средний уровень морских приливов", "Таблица 2 — Средний уровень морских приливов"),
    "Greek": ("Σχήμα 3: Μέσο ύψος της παλίρροιας", "Πίνακας 2: Μέσο ύψος της παλίρροιας"),
    "Turkish": ("Şekil 3: Ortalama gelgit yüksekliği ve derinliği", "Tablo 2: Ortalama gelgit yüksekliği ve derinliği"),
    "Chinese": ("图 3：港口潮汐平均高度变化", "表2-1 港口潮汐平均高度变化"),
    "Chinese, traditional": ("圖3 港口潮汐平均高度變化", "表 2: 港口潮汐平均高度變化"),
    "Japanese": ("図 3: 港の潮汐の平均的な高さ", "表 2　港の潮汐の平均的な高さ"),
    "Korean": ("그림 3: 항구 조석의 평균 높이", "표 2. 항구 조석의 평균 높이"),
    "Thai": ("รูปที่ 3 ระดับน้ำเฉลี่ยของท่าเรือทั้งหมด", "ตารางที่ 2: ระดับน้ำเฉลี่ยของท่าเรือทั้งหมด"),
    "Arabic": ("الشكل 3: متوسط ارتفاع المد والجزر", "جدول 2: متوسط ارتفاع المد والجزر"),
}


@pytest.mark.parametrize("language", CAPTIONS)
def test_captions_are_found_in_every_language(language):
    for text, kind in zip(CAPTIONS[language], ("figure", "figure" if language == "Polish" else "table"), strict=True):
        (caption,) = page_captions(text)
        assert caption.kind == kind
        assert text.endswith(caption.text) and not caption.text[0].isdigit()


@pytest.mark.parametrize(
    "mention",
    [
        "Abbildung 3 zeigt die mittlere Höhe der Gezeiten",
        "Рисунок 3 показывает средний уровень морских приливов",
        "图 3 显示了港口潮汐平均高度的变化",
        "図 3 は港の潮汐の平均的な高さを示す",
        "그림 3 은 항구 조석의 평균 높이 를 보인다",
        "图 3 3 4 5 6 7 8 9",
        "表 2",
    ],
)
def test_a_mention_is_no_caption_in_any_language(mention):
    assert page_captions(mention) == []


def test_a_chinese_caption_ends_at_its_full_stop():
    (caption,) = page_captions("图 3：港口潮汐平均高度变化。这里是下一句话")
    assert caption.text == "港口潮汐平均高度变化"


def test_the_table_of_languages_holds_words_only():
    for language in languages().values():
        for words in (language.figure, language.table, language.mention, language.words):
            assert all(isinstance(word, str) and word.strip() == word != "" for word in words)
    with_captions = [name for name, language in languages().items() if language.figure and language.table]
    assert len(with_captions) >= 10


# --- what is said

GERMAN = "Die Höhe der Gezeiten ist nicht von der Form des Hafens und das Wasser wird von den Winden getrieben. "
ENGLISH = "The height of the tides is not a matter of the harbour, and this is for all that are with the water. "
TITLE = [("Heights of tides in harbours", 0)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([line(GERMAN[:50], y=600 - 20 * n) + line(GERMAN[50:], y=590 - 20 * n) for n in range(4)], "1 in German"),
        ([song("港口潮汐平均高度变化的基本知识与观测方法", y=600 - 20 * n) for n in range(8)], "not in Latin letters"),
        ([line(ENGLISH, y=600 - 20 * n) for n in range(4)], None),
        ([line("x <- c(1, 2, 3)", y=600 - 20 * n) for n in range(4)], None),
    ],
)
def test_a_language_that_the_embedded_models_do_not_read_is_said_once(folder, caplog, words, found):
    english = raw_pdf([RawPage(line(ENGLISH))], [("Speeds of tides in harbours", 0)])
    path = folder({"a.pdf": raw_pdf([RawPage("".join(words))], TITLE), "b.pdf": english})
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus(path, queries="verbatim")
    said = [record.message for record in caplog.records if "English only" in record.message]
    assert said == ([language_note(corpus)] if found else [])
    if found:
        assert said[0].startswith("1 of 2 documents of documents are not in English") and found in said[0]
