"""Options that a declaration of a model may have."""

from lmppl import ir
from lmppl.settings import ranges_of

TEMPLATE = "template"  # what every backend takes, besides variables of its template
LM_TEXTS = {
    "revision": "a text",
    "dtype": '"float32" or "bfloat16"',
    "adapter": "a text",
    "tokenizer": "a text",
    TEMPLATE: "a file of Jinja",
}
LM_LAWS = ranges_of(ir.LocalLaw)  # numbers, whose values are looked at when a program is lowered
LM_KEY, LM_PATIENCE = "key", "patience"  # of servers: a variable's name, and seconds
LM_OPTIONS = [*LM_TEXTS, LM_KEY, LM_PATIENCE, *LM_LAWS]
