from .programs import Served as Served
from .programs import load_programs as load_programs
from .programs import require_names as require_names
from .server import make_server as make_server
from .settings import Serving as Serving
from .settings import open_socket as open_socket
from .settings import require_packages as require_packages
