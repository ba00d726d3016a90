"""What the engines are asked, as the student's template has it: with the beginning of a sequence, without which it miscounts."""

from backends.base import Special, Text

ASK = [
    Special("<｜begin▁of▁sentence｜>"),
    Special("<｜User｜>"),
    Text("How many r's are in strawberry?"),
    Special("<｜Assistant｜>"),
    Special("<think>"),
    Text("\n"),
]
