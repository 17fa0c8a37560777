"""Laws that a language model, an engine or a factor of one's own must pass, for tests in any
repository.

    @pytest.mark.parametrize("law", lmppl.testing.language_model_laws, ids=lambda law: law.__name__)
    def test_my_model(law):
        law(MyModel())

A law raises AssertionError where it is broken.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
