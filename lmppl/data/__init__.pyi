from .records import read_records as read_records
from .records import read_text as read_text
from .rows import Row as Row
from .rows import make_rows as make_rows
from .rows import rename as rename
from .rows import split_settings as split_settings
from .tables import records_of as records_of
