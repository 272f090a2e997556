"""What tests of several folders share."""

import pytest


@pytest.fixture(scope="module")
def four_prompts():
    """Fewer prompts than the kit's, in everything that reads them."""
    from gaugeblock.conformance.similarity import endpoints
    from gaugeblock.fixtures.similarity import prompts

    few = prompts.texts()[:4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "texts", lambda: few)
        patch.setattr(endpoints, "texts", lambda: few)
        yield
