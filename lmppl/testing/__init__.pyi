from .engines import engine_laws as engine_laws
from .factors import factor_laws as factor_laws
from .language_models import language_model_laws as language_model_laws
from .server.server import FakeServer as FakeServer
from .server.traps import Traps as Traps
