"""The Celery app. Importing it reads no setting and opens no connection; the configuration is made at first use."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from kombu import Queue
from kombu.utils.url import parse_url

from db.settings import Settings, load_settings
from worker.role import WorkerRole

SWEEP = 10.0  # seconds between two looks for messages that nobody acknowledged in time

#: Who sends a message tries three times within a second. Then the scheduler sends it, from the rows; a child that
#: waited longer, with its batch stored and only the chord's callback to send, would be killed at its time limit.
SENDING = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2}


class QuietTask(Task):  # type: ignore[misc] # celery has no types
    """What every task of ours is."""

    abstract = True
    Request = "worker.quiet:QuietRequest"


class BakeoffCelery(Celery):  # type: ignore[misc] # celery has no types
    """A Celery app that a spawned child imports instead of unpickling, so that both read the same configuration."""

    amqp_cls = "worker.reconnect:EagerAMQP"
    task_cls = QuietTask

    def __reduce__(self) -> tuple[Any, ...]:
        return _the_app, ()


def _the_app() -> BakeoffCelery:
    return app


def configuration() -> dict[str, Any]:
    """Celery's configuration for this process. Raises `Unreachable` where no Redis is set and none runs here."""
    settings = load_settings()
    role = WorkerRole.of_this_process()
    timeouts = {"socket_connect_timeout": settings.publish_timeout, "socket_keepalive": True}
    if role is None:  # a process that only sends: a Redis that hangs must not hang it too
        timeouts["socket_timeout"] = settings.publish_timeout
    return {
        "broker_url": settings.broker,
        "broker_use_ssl": parse_url(settings.broker).get("ssl"),  # what kombu reads of the address, for Flower
        "broker_transport": "worker.delivery:Transport" if role and role.intake else "worker.thrift:Transport",
        "result_backend": f"worker.coordination:ChordCounter+{settings.broker}",
        "imports": (
            "worker.arrivals",
            "worker.run",
            "worker.judging",
            "worker.planning",
            "worker.integrating",
            *(role.imports if role else ()),
        ),
        # JSON only: nothing on the wire is ever executed.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": "celery",
        "task_queues": [Queue(name) for name in role.queues] if role else None,
        "task_create_missing_queues": True,
        # A message is acknowledged when its rows are stored; a lost child is not redelivered, its lease ends instead.
        "task_publish_retry": False,  # the scheduler has its own way to send again
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_acks_on_failure_or_timeout": True,
        "task_track_started": True,
        "task_send_sent_event": False,  # a connection and a message more for each that is sent; Postgres knows
        "worker_send_task_events": True,
        "result_expires": settings.result_expires,
        "result_chord_retry_interval": 1.0,
        # One child per worker, a fresh interpreter: CUDA and torch do not survive a fork.
        "worker_concurrency": 1,
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": settings.start_allowance + settings.message_limit,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 0,  # see worker/stopping.py
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {**timeouts, **SENDING, **_redelivery(settings, role)},
        "redis_socket_connect_timeout": settings.publish_timeout,
        "redis_socket_keepalive": True,
        "result_backend_transport_options": {"retry_policy": {"max_retries": 3, "timeout": settings.publish_timeout}},
    }


def _redelivery(settings: Settings, role: WorkerRole | None) -> dict[str, Any]:
    """When Redis delivers a message again that nobody acknowledged.

    The rows of a lost message of ours say so themselves, so Redis may wait long. A `bakeoff.submit` has no row yet: it
    comes back soon, and is kept apart, since a sweep with a short time-out would deliver everybody's running messages.
    """
    if role is None or not role.intake:
        return {
            "visibility_timeout": settings.visibility_timeout,
            "unacked_restore_interval": SWEEP,
            "unacked_restore_throttle": 1,
        }
    return {
        "visibility_timeout": settings.intake_visibility,
        "unacked_restore_interval": min(SWEEP, settings.intake_visibility / 3),
        "unacked_restore_throttle": 1,
        "unacked_key": "unacked.intake",
        "unacked_index_key": "unacked_index.intake",
        "unacked_mutex_key": "unacked_mutex.intake",
        "unacked_mutex_expire": max(1, int(settings.intake_visibility)),  # a sweeper that was killed holds it
    }


app = BakeoffCelery("bakeoff")
app.add_defaults(configuration)
