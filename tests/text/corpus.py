"""Short texts of many scripts, emoji, combining marks, and bytes that are no UTF-8."""

SCRIPTS = {
    "Latin": "Straße, naïve, Łódź, Việt Nam, İstanbul",
    "Greek": "Καλημέρα, τι κάνεις;",
    "Cyrillic": "Съешь ещё этих мягких булок",
    "Armenian": "Բարեւ աշխարհ",
    "Georgian": "გამარჯობა მსოფლიო",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Arabic": "السلام عليكم، كيف حالك؟",
    "Syriac": "ܫܠܡܐ ܥܠܝܟ",
    "Thaana": "އައްސަލާމު އަލައިކުމް",
    "NKo": "ߊߟߎ߫ ߣߌ߫ ߛߐ߱",
    "Devanagari": "नमस्ते दुनिया, क्षत्रिय",
    "Bengali": "নমস্কার বিশ্ব",
    "Gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ",
    "Gujarati": "નમસ્તે દુનિયા",
    "Odia": "ନମସ୍କାର ଦୁନିଆ",
    "Tamil": "வணக்கம் உலகம்",
    "Telugu": "నమస్కారం ప్రపంచం",
    "Kannada": "ನಮಸ್ಕಾರ ಪ್ರಪಂಚ",
    "Malayalam": "നമസ്കാരം ലോകം",
    "Sinhala": "ආයුබෝවන් ලෝකය",
    "Thai": "สวัสดีชาวโลก",
    "Lao": "ສະບາຍດີໂລກ",
    "Tibetan": "བཀྲ་ཤིས་བདེ་ལེགས།",
    "Myanmar": "မင်္ဂလာပါကမ္ဘာ",
    "Khmer": "សួស្តី\u200bពិភពលោក",
    "Ethiopic": "ሰላም ለዓለም",
    "Cherokee": "ᎣᏏᏲ ᎡᎶᎯ",
    "Inuktitut": "ᐊᐃ ᓄᓇᕐᔪᐊᖅ",
    "Mongolian": "ᠰᠠᠶᠢᠨ ᠪᠠᠶᠢᠨ᠎ᠠ",
    "Hangul": "안녕하세요 세계, 한글",
    "Hiragana, Katakana": "こんにちは、ﾃｽﾄ カタカナ",
    "Han": "你好，世界！𠮷野家 㐀",
    "Gothic": "𐌰𐍄𐍄𐌰 𐌿𐌽𐍃𐌰𐍂",
    "Cuneiform": "𒀭𒈗 𒆠𒂗",
    "Adlam": "𞤀𞤣𞤤𞤢𞤥",
}

EMOJI = {
    "a family": "👨‍👩‍👧‍👦!",
    "flags": "🇩🇪🇯🇵 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "skin tones": "👍🏽👩🏿‍🚀",
    "a rainbow flag": "🏳️‍🌈",
    "a keycap": "1️⃣ #️⃣",
    "a heart, in two styles": "❤︎❤️‍🔥",
}

MARKS = {
    "combining": "e\u0301 a\u0308\u0323 o\u0302\u0301",
    "many": "Z" + "\u0300\u0316\u0334" * 8 + "!",
    "stacked": "ก็ํ นํ้า",
    "joiners": "क\u200dष क्\u200cष \ufeff x\u2060y",
    "ends of the planes": "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "directions": "\u202eabc\u202c \u2066x\u2069",
}

# Each is wrong in its own way (Unicode 15, tables 3-7 to 3-10).
INVALID = {
    "a lone continuation": b"a\x80b",
    "many continuations": b"\x80\xbf\x80\xbf\x80",
    "overlong slash in 2": b"\xc0\xaf\xc1\x81",
    "overlong in 3": b"\xe0\x80\xaf\xe0\x9f\xbf",
    "overlong in 4": b"\xf0\x80\x80\xaf\xf0\x8f\xbf\xbf",
    "surrogates": b"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
    "beyond the last plane": b"\xf4\x90\x80\x80\xf4\x91\x92\x93\xff\x41\x80\xbf\x42",
    "five and six bytes": b"\xf8\x88\x80\x80\x80\xfc\x84\x80\x80\x80\x80",
    "never a byte": b"\xfe\xff\xfe",
    "truncated 2": b"\xc3",
    "truncated 3": b"\xe1\x80\xe2\xe2\x82",
    "truncated 4": b"\xf0\x91\x92\xf1\xbf\x41\xf3\xa0\x80",
    "cut short by the next": b"\xe2\x82\xe2\x82\xac\xf0\x9f\x98\xf0\x9f\x98\x80",
    "between good ones": "é".encode() + b"\xc3" + "日".encode() + b"\xe6\x97" + "👍".encode() + b"\xf0\x9f",
}

TEXTS = {**SCRIPTS, **EMOJI, **MARKS}
