"""/v1/models: what is served, under which names."""

from qwick.api.answers import Json
from qwick.server.service import Service


def model_list(service: Service) -> Json:
    """All names."""
    return {"object": "list", "data": [model_of(service, name) for name in service.options.public_names]}


def model_of(service: Service, name: str) -> Json:
    """One name; with what is known of the model once it is open."""
    found: Json = {"id": name, "object": "model", "created": service.created, "owned_by": "qwick"}
    if service.is_open:
        llm = service.opened
        found |= {"max_model_len": llm.context_len, "thinks_by_default": llm.prompting.thinks_by_default}
    return found
