from . import adapter as adapter
from . import models as models
from .adapter import FILES as FILES
from .huggingface import HuggingFaceModel as HuggingFaceModel
from .identity import ADAPTER as ADAPTER
from .load import describe_network as describe_network
from .load import load_networks as load_networks
from .silence import quiet as quiet
