"""What is built in the demo: a counter of words, and the pages of a small site."""

from __future__ import annotations

from typing import Final

FILES: Final = {
    "words/__main__.py": '''\
"""Count the words of a text."""

import sys
from collections import Counter


def count(text):
    return Counter(word.strip(".,;!?").lower() for word in text.split())


if __name__ == "__main__":
    for word, times in count(sys.stdin.read()).most_common(3):
        print(f"{times:4}  {word}")
''',
    "tests/test_words.py": """\
import unittest

from words.__main__ import count


class CountTest(unittest.TestCase):
    def test_a_word_is_the_same_at_the_end_of_a_sentence(self):
        self.assertEqual(count("Bay, bay. BAY!"), {"bay": 3})
""",
    "site/build.py": '''\
"""Make a page of each text."""

import html
from pathlib import Path

for text in sorted(Path("pages").glob("*.txt")):
    title, _, body = text.read_text().partition("\\n")
    page = Path("public", text.stem + ".html")
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"<h1>{html.escape(title)}</h1>\\n<p>{html.escape(body.strip())}</p>\\n")
    print(page, page.stat().st_size, "bytes")
''',
    "site/pages/alcove.txt": "Alcove\nA place of one's own in a wall: quiet & out of the way.\n",
    "site/pages/bay.txt": "Bay\nWhere a ship is safe from the wind.\n",
}
