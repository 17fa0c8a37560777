from .load import describe_gguf as describe_gguf
from .load import load_ggufs as load_ggufs
from .model import LlamaCppModel as LlamaCppModel
