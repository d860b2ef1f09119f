"""One fetch: caps, time-outs, redirects, patience, and only errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kbs.adapters.http import PATIENCE, HttpFetcher
from kbs.core.errors import CollateralError
from kbs.core.fetch import ABSENT, OFFLINE, UNREACHABLE, BusyError, OfflineFetcher
from tests.fakes import vendor
from tests.fakes.vendor import Fault, Served, VendorService, serving

pytestmark = pytest.mark.enable_socket

BODY = b"collateral " * 9
QUICK = replace(PATIENCE, connect=2.0, read=0.3, total=0.4, pause=0.01)


@pytest.fixture
def service() -> VendorService:
    return VendorService({"/it": Served(BODY, {"X-Chain": "c"})})


@pytest.fixture
def url(service: VendorService) -> Iterator[str]:
    with serving(service) as found:
        yield found


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def fetcher(waits: list[float]) -> Iterator[HttpFetcher]:
    made = HttpFetcher(QUICK, sleep=waits.append)
    yield made
    made.close()


def fail(fetcher: HttpFetcher, url: str, limit: int = 1000) -> CollateralError:
    with pytest.raises(CollateralError) as caught:
        fetcher.fetch(url + "/it", limit=limit)
    return caught.value


def test_an_answer_comes_with_its_headers(fetcher: HttpFetcher, url: str) -> None:
    answer = fetcher.fetch(url + "/it", limit=len(BODY))
    assert answer.body == BODY
    assert answer.headers["x-chain"] == "c"


def test_an_answer_in_chunks_is_whole(
    fetcher: HttpFetcher, url: str, service: VendorService
) -> None:
    service.faults = [vendor.chunked]
    assert fetcher.fetch(url + "/it", limit=1000).body == BODY


def test_a_body_is_posted(
    fetcher: HttpFetcher, url: str, service: VendorService
) -> None:
    answer = fetcher.fetch(
        url + "/it", limit=1000, body=b"question", content_type="application/x"
    )
    assert answer.body == BODY
    assert service.posted == [b"question"]


@pytest.mark.parametrize(
    "fault", [vendor.huge, vendor.promising, vendor.instead(bytes(1001))]
)
def test_more_than_the_limit_is_not_read(
    fetcher: HttpFetcher, url: str, service: VendorService, fault: Fault
) -> None:
    service.faults = [fault]
    error = fail(fetcher, url)
    assert error.code == UNREACHABLE
    assert error.expected == "at most 1000"
    assert service.asked == ["/it"]


@pytest.mark.parametrize(
    "fault",
    [
        vendor.status(500),
        vendor.status(503),
        vendor.nothing,
        vendor.truncated,
        vendor.late(0.5),
        vendor.dripping,
        vendor.slow_headers,
        vendor.status(429),
        vendor.status(429, Retry_After="5"),
        vendor.status(503, Retry_After="5"),
    ],
)
def test_what_may_pass_is_asked_again_and_not_for_ever(
    fetcher: HttpFetcher, url: str, service: VendorService, fault: Fault
) -> None:
    service.faults = [fault]
    assert fetcher.fetch(url + "/it", limit=1000).body == BODY
    assert len(service.asked) == 2
    service.asked.clear()
    service.faults = [vendor.status(500)] * 9
    error = fail(fetcher, url)
    assert (error.code, error.got) == (UNREACHABLE, "status 500")
    assert len(service.asked) == QUICK.attempts


def test_pauses_grow_and_retry_after_is_kept_to(
    fetcher: HttpFetcher, url: str, service: VendorService, waits: list[float]
) -> None:
    service.faults = [vendor.status(500)] * 3
    fail(fetcher, url)
    assert waits == [0.01, 0.02]
    waits.clear()
    service.faults = [vendor.status(429, Retry_After="7")]
    fetcher.fetch(url + "/it", limit=1000)
    assert waits == [7]


def test_a_long_wait_is_the_callers(
    fetcher: HttpFetcher, url: str, service: VendorService, waits: list[float]
) -> None:
    service.faults = [vendor.status(429, Retry_After="3600")]
    error = fail(fetcher, url)
    assert isinstance(error, BusyError)
    assert error.retry_seconds == 3600
    assert waits == []
    assert len(service.asked) == 1
    # Nobody sends this broker away for longer than a day.
    service.faults = [vendor.status(429, Retry_After="9" * 12)]
    error = fail(fetcher, url)
    assert isinstance(error, BusyError)
    assert error.retry_seconds == 24 * 3600


@pytest.mark.parametrize("code", [400, 401, 404, 410, 204])
def test_what_is_not_there_is_not_asked_for_again(
    fetcher: HttpFetcher, url: str, service: VendorService, code: int
) -> None:
    service.faults = [vendor.status(code)]
    assert fail(fetcher, url).code == ABSENT
    assert len(service.asked) == 1


def test_redirects_stay_on_the_host(
    fetcher: HttpFetcher, url: str, service: VendorService
) -> None:
    service.faults = [vendor.redirecting("/it")]
    assert fetcher.fetch(url + "/old", limit=1000).body == BODY
    for target in ("http://127.0.0.1:1/it", "https://127.0.0.1/it", "file:///etc"):
        service.faults = [vendor.redirecting(target)]
        error = fail(fetcher, url)
        assert error.got is not None
        assert error.got.startswith("a redirect to ")
    service.faults = [vendor.redirecting("/it")] * 4
    assert fail(fetcher, url).got == "more than 3 redirects"


def test_packed_answers_are_refused(
    fetcher: HttpFetcher, url: str, service: VendorService
) -> None:
    service.faults = [vendor.instead(BODY, Content_Encoding="gzip")]
    assert fail(fetcher, url).got == "an answer packed as 'gzip'"


@pytest.mark.parametrize(
    "fault",
    [
        vendor.headed(Content_Length="\xb2"),
        vendor.headed(Content_Length="9" * 5000),
        vendor.headed(302, Location="http://[::1"),
        vendor.headed(302, Location="//\xff\xfe/"),
    ],
    ids=["no digit", "too long a number", "no URL", "no UTF-8"],
)
def test_headers_that_nobody_can_read_are_an_error_of_ours(
    fetcher: HttpFetcher, url: str, service: VendorService, fault: Fault
) -> None:
    """What is none would end the pass over all other sources."""
    service.faults = [fault] * QUICK.attempts
    assert fail(fetcher, url).code == UNREACHABLE


def test_a_proxy_of_the_site_is_used_and_held_to_the_same(
    fetcher: HttpFetcher,
    url: str,
    service: VendorService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.delenv("no_proxy", raising=False)
    vendors = "http://vendor.invalid/it"
    service.answers[vendors] = Served(BODY)
    assert fetcher.fetch(vendors, limit=1000).body == BODY
    service.faults = [vendor.slow_headers] * QUICK.attempts
    assert fail(fetcher, "http://vendor.invalid").code == UNREACHABLE
    assert set(service.asked) == {vendors}


def test_nobody_there_is_said_in_one_line(fetcher: HttpFetcher) -> None:
    error = fail(fetcher, "http://127.0.0.1:1")
    assert error.code == UNREACHABLE
    assert error.got == "Connection refused"


def test_offline_asks_nobody() -> None:
    with pytest.raises(CollateralError) as caught:
        OfflineFetcher().fetch("https://kdsintf.amd.com/x", limit=1)
    assert caught.value.code == OFFLINE
    assert "kbs collateral fetch --out" in str(caught.value)
