"""Hugging Face Hub: a path on the Hub is an HTTP address and, where the user has one, a token."""

from __future__ import annotations

from ncbench.datasets.remote.answer import hopeless


def hub_address(url: str) -> tuple[str, dict[str, str]]:
    """Translate a path on the Hub.

    Args:
        url: ``hf://datasets/OWNER/NAME@REVISION/PATH``.

    Returns:
        The HTTP address and the headers that carry the user's own token (``HF_TOKEN`` or ``hf auth login``).

    Raises:
        SourceError: The path is not one of the Hub.
    """
    from huggingface_hub import get_token, hf_hub_url, parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        parsed = parse_hf_uri(url)
        address = hf_hub_url(parsed.id, parsed.path_in_repo, repo_type=parsed.type, revision=parsed.revision)
    except (HfUriError, ValueError) as error:
        remedy = "Write hf://datasets/OWNER/NAME@REVISION/PATH in the card"
        raise hopeless(url, f"is no path on the Hub ({error})", remedy) from error
    token = get_token()
    return address, {"Authorization": f"Bearer {token}"} if token else {}
