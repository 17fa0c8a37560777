from .folder import page_of as page_of
from .rendering import render as render
from .rendering import render_run as render_run
