from .server import FakeServer as FakeServer
from .traps import Traps as Traps
