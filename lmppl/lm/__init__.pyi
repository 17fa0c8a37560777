from .protocol import Cost as Cost
from .protocol import LanguageModel as LanguageModel
from .protocol import Past as Past
from .protocol import Row as Row
from .protocol import Stream as Stream
from .protocol import Tokens as Tokens
from .protocol import nothing as nothing
