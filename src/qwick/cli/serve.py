"""`qwick serve`: OpenAI's API over HTTP, for one model."""

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwick.cli.options import MachineFlags, ModelName, spread, tell_memory
from qwick.cli.terminal import loading_bar, note, warn
from qwick.errors import UsageError
from qwick.store import find_model

if TYPE_CHECKING:  # the real imports wait until the arguments are known to be right
    from qwick.async_llm import AsyncLLM
    from qwick.server.service import Service

CACHE_MEMORY = 1 << 30  # bytes at most, taken as they are needed
LEVELS = ("debug", "info", "warning", "error")
NETWORK, LIMITS = "Network", "Limits"  # panels of the help


@spread
def serve(
    model: ModelName = "pocket",
    *,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 for all the world.", rich_help_panel=NETWORK),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0 takes any that is free.", rich_help_panel=NETWORK)] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Who sends it may ask; may be repeated. @FILE: one a line, with name=, max-concurrent=, per-minute=.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Web pages of this origin may ask; may be repeated.", rich_help_panel=NETWORK
        ),
    ] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS.", rich_help_panel=NETWORK)] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key.", rich_help_panel=NETWORK)
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What clients may call the model; may be repeated.")
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="For chats that do not say; the model's own default when left out."),
    ] = None,
    loop_guard: Annotated[
        bool,
        typer.Option("--loop-guard/--no-loop-guard", help="End thoughts and answers of chats that repeat themselves."),
    ] = True,
    max_concurrent: Annotated[
        int, typer.Option(metavar="N", help="Answers generated at a time.", rich_help_panel=LIMITS)
    ] = 16,
    max_queue: Annotated[
        int, typer.Option(metavar="N", help="Answers that wait; more are refused (429).", rich_help_panel=LIMITS)
    ] = 64,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Of one request.", rich_help_panel=LIMITS)] = 1800,
    drain: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="That answers have to finish when stopped.", rich_help_panel=LIMITS),
    ] = 30,
    reader_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="That a reader may take nothing of a stream.", rich_help_panel=LIMITS),
    ] = 60,
    max_body: Annotated[str, typer.Option(metavar="16MiB", help="Of a request.", rich_help_panel=LIMITS)] = "16MiB",
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help=f"{', '.join(LEVELS)}.")] = "info",
    machine: MachineFlags,
) -> None:
    """Answer over HTTP, as OpenAI's API does: /v1/chat/completions, /v1/completions, /v1/models and more.

    docs/server.md says what is understood. Ctrl-C or SIGTERM lets answers finish, a second one does not.

    qwick serve

    qwick serve ./Qwen3.5-4B-Q4_K_M.gguf --threads 8 --threads-batch 16 --mlock --ctx-size 8192 --no-think
    """
    find_model(model)
    if log_level not in LEVELS:
        raise UsageError(f"--log-level is {log_level!a:.40}; it must be {', '.join(LEVELS)}")
    for name, value, least in (("max-concurrent", max_concurrent, 1), ("max-queue", max_queue, 0)):
        if value < least:
            raise UsageError(f"--{name} is {value}; it must be at least {least}")
    if not 0 < timeout <= 1e9 or not 0 <= drain <= 1e9 or not 0 < reader_timeout <= 1e6:
        raise UsageError("--timeout, --drain and --reader-timeout are seconds, above 0")
    tls = _tls(ssl_certfile, ssl_keyfile)
    engine = machine.engine_options(max_sequences=max_concurrent, cache_memory=CACHE_MEMORY)
    from qwick.async_llm import AsyncLLM
    from qwick.cli.options import byte_count
    from qwick.server.options import ServerOptions, read_keys
    from qwick.server.run import listen, log_to_stderr
    from qwick.server.run import serve as run

    options = ServerOptions(
        model,
        engine,
        aliases=tuple(alias or ()),
        think=think,
        loop_guard=loop_guard,
        max_queue=max_queue,
        keys=read_keys(api_key or []),
        cors=tuple(cors or ()),
        max_body_bytes=byte_count("--max-body", max_body),
        timeout_seconds=timeout,
        drain_seconds=drain,
        reader_seconds=reader_timeout,
    )
    log_to_stderr(log_level)
    with listen(host, port) as bound, loading_bar(f"loading {model}") as progress:
        address = bound.getsockname()
        if not options.keys and not _is_loopback(address[0]):
            warn(f"EVERYONE who reaches {address[0]} may use this server: give it an --api-key, or --host 127.0.0.1")
        where = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"{'https' if tls else 'http'}://{where}:{address[1]}"

        def make() -> "AsyncLLM":
            return AsyncLLM(model, engine, progress=progress, memory_beside=options.limits.queue_bytes)

        def ready(service: "Service") -> None:
            tell_memory(service.opened.ready.config.memory)
            note(f"{service.model_name} is ready: {url}/v1")

        note(f"listening on {url}")
        run(options, make, bound, ssl=tls, ready=ready)


def _tls(certificate: Path | None, key: Path | None) -> dict[str, str]:
    from ssl import Purpose, create_default_context

    if certificate is None:
        if key is not None:
            raise UsageError("--ssl-keyfile wants --ssl-certfile")
        return {}
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise UsageError(f"{path} is no file; TLS wants a certificate and its key in PEM form")
    try:
        create_default_context(Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # of these SSLError is one
        told = "are no certificate and the unencrypted key to it, in PEM form"
        raise UsageError(f"--ssl-certfile {certificate} and --ssl-keyfile {key or 'none'} {told}: {error}") from None
    return {"ssl_certfile": str(certificate)} | ({} if key is None else {"ssl_keyfile": str(key)})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
