"""The inspector in a real browser: the starter is served, used, and looked at."""

import asyncio
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from catalysis.inspector import PATH
from tests.conftest import fresh_postgres_url
from tests.inspector.served import ARGUMENTS, Served, apart, find_browser, served

CHROMIUM = find_browser()
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CATALYSIS_REQUIRE_BROWSER") != "1",
        reason="no Chromium is installed; CHROMIUM names one, CATALYSIS_REQUIRE_BROWSER=1 makes this a failure",
    ),
]
CANARY = "canary-5e1f"


async def test_there_is_a_browser_where_one_is_required():
    assert CHROMIUM is not None, (
        "CATALYSIS_REQUIRE_BROWSER=1, and no Chromium: install one, or name it in CHROMIUM"
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One at a time: what one observes is the process's."""
    if request.param == "postgres":
        url = apart(fresh_postgres_url())
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('browser') / 'test.db'}"
    with served(url) as server:
        yield server


class Window:
    """A page that keeps what went wrong in it, and where it asked."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda failure: self.complaints.append(str(failure)))
        page.on("requestfailed", self._failed)
        page.on("request", lambda asked: self.hosts.add(httpx.URL(asked.url).netloc.decode()))

    def _failed(self, asked: Request) -> None:
        if asked.failure != "net::ERR_ABORTED":  # which the next page did
            self.complaints.append(f"{asked.failure}: {asked.url}")


async def opened(context: BrowserContext) -> Window:
    return Window(await context.new_page())


@pytest_asyncio.fixture(loop_scope="module")
async def window(browser: Browser, server: Served) -> AsyncIterator[Window]:
    """A window whose page must not complain, nor ask another host."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(8_000)
    window = await opened(context)
    yield window
    aborted = [
        each for each in window.complaints if "fragment=1" in each
    ]  # a poll that the next page cut short
    assert [each for each in window.complaints if each not in aborted] == []
    assert window.hosts <= {server.url.removeprefix("http://")}
    await context.close()


async def send(server: Served, path: str) -> httpx.Response:
    return await asyncio.to_thread(server.get, path)


async def test_a_query_in_a_loop_appears_and_is_opened(window: Window, server: Served):
    page = window.page
    await page.goto(server.panel + "/")
    await page.evaluate("window.sameDocument = true")
    rows = page.locator("tbody tr", has_text="/demo/owners")
    before = await rows.count()
    assert (await send(server, "/demo/owners")).status_code == 200
    await expect(rows).to_have_count(before + 1)
    assert await page.evaluate("window.sameDocument"), "it was reloaded"
    await expect(rows.first).to_contain_text("20\u00d7 repeated")
    await rows.first.locator("a").click()
    await expect(page.locator("h1")).to_contain_text("/demo/owners")
    loop = page.locator("#repeated article")
    await expect(loop).to_contain_text("20\u00d7")
    site = await loop.locator(".site").text_content()
    line = Path(__file__).with_name("served.py").read_text("utf-8").splitlines()[int(site.split(":")[1]) - 1]
    assert "the query in a loop" in line
    await expect(loop).to_contain_text("select(User).where(User.id.in_(values))")
    bars = page.locator("svg.line").nth(1).locator("rect")
    assert await bars.count() == 20
    left = [(await bars.nth(n).bounding_box())["x"] for n in (0, 19)]
    assert left[0] < left[1]


async def test_by_keys_alone(window: Window, server: Served):
    page = window.page
    await send(server, "/demo/owners")
    await send(server, "/auth/me")
    await page.goto(server.panel + "/")
    await expect(page.locator("tbody tr").first).to_contain_text("/auth/me")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    focused = page.locator(":focus")
    await expect(focused).to_contain_text("/demo/owners")
    outline = await focused.evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("k")
    await expect(focused).to_contain_text("/auth/me")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_contain_text("/demo/owners")
    await page.wait_for_load_state()
    await page.keyboard.press("u")
    await page.wait_for_url(server.panel + "/")
    await page.keyboard.press("?")
    await expect(page.locator("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_be_hidden()
    await page.keyboard.press("/")
    await page.keyboard.type("owners")
    await expect(page.locator("tbody tr", has_text="/auth/me")).to_have_count(0)
    await expect(page.locator("tbody tr", has_text="/demo/owners").first).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await expect(focused).to_contain_text("/demo/owners")
    await page.keyboard.press("2")
    await page.wait_for_url(server.panel + "/statements")
    await page.wait_for_load_state()
    await page.keyboard.press("Escape")
    await page.wait_for_url(server.panel + "/")


async def test_the_row_in_focus_stays_while_others_come(window: Window, server: Served):
    page = window.page
    await send(server, "/demo/owners")
    await page.goto(server.panel + "/")
    await page.keyboard.press("j")
    focused = page.locator(":focus")
    href = await focused.get_attribute("href")
    await send(server, "/categories")
    await expect(page.locator("tbody tr").first).to_contain_text("/categories")
    assert await focused.get_attribute("href") == href


async def test_a_slow_statement_with_its_plan(window: Window, server: Served):
    page = window.page
    await send(server, f"/demo/search/{CANARY}")
    await page.goto(server.panel + "/statements?sort=max")
    await page.locator("tbody a", has_text=re.compile("JOIN .*LIKE")).first.click()
    await expect(page.locator("h1")).to_contain_text("Statement")
    boxes = page.locator("svg.flame rect")
    await expect(boxes.last).to_be_visible()
    assert await boxes.count() >= 2
    for n in range(await boxes.count()):
        box = await boxes.nth(n).bounding_box()
        assert box["width"] > 4
        assert box["height"] > 20
    await expect(page.locator("table.plan tbody tr")).to_have_count(await boxes.count())
    await expect(page.locator("svg.history rect").first).to_be_visible()
    await expect(page.locator("pre.sql .k").first).to_have_text("SELECT")
    if server.database_url.startswith("postgresql"):
        assert await page.locator("svg.flame rect.hot").count() > 0
        await page.locator("svg.flame a").last.click()
        assert "#step-" in page.url
        assert re.search("Scan", await page.locator("table.plan").text_content())


async def test_a_transaction_shows_who_holds_it(window: Window, server: Served):
    page = window.page
    await page.goto(server.panel + "/transactions")
    holding = asyncio.create_task(send(server, "/demo/hold?seconds=2.5"))
    row = page.locator("#open tbody tr")
    await expect(row).to_contain_text(re.compile(r"served\.py:\d+"))
    await expect(row).to_contain_text("idle")
    await expect(row).to_contain_text("/demo/")
    await expect(page.locator("#pool")).to_contain_text(re.compile("Connections lent *[1-9]"))
    await holding
    await expect(page.locator("#open")).to_contain_text("None")
    await expect(page.locator("#ended tbody tr").first).to_contain_text("rollback")


async def test_clearing(window: Window, server: Served):
    page = window.page
    await send(server, "/demo/owners")
    await page.goto(server.panel + "/")
    await page.get_by_role("button", name="Clear").click()
    await expect(page.get_by_text("Nothing yet.")).to_be_visible()
    await send(server, "/auth/me")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_nothing_secret_reaches_the_browser(window: Window, server: Served):
    page = window.page
    await page.goto(server.panel + "/")
    await page.get_by_role("button", name="Clear").click()
    form = {"username": CANARY, "password": CANARY}
    await asyncio.to_thread(server.client.post, "/auth/token", data=form)
    for path in (
        f"/demo/search/{CANARY}?wanted={CANARY}",
        f"/demo/fail/{CANARY}",
        f"/reset/{CANARY}",
        f"/tasks/{CANARY}",
    ):
        await send(server, path)
    await page.goto(server.panel + "/")
    await expect(page.locator("tbody tr", has_text="/auth/token").first).to_be_visible()
    seen, waiting = set(), [server.panel + "/"]
    while waiting:
        url = waiting.pop()
        await page.goto(url)
        assert CANARY not in await page.content(), url
        seen.add(url)
        links = await page.locator("main a[href]").evaluate_all(
            "all => all.map(each => new URL(each.getAttribute('href'), location.href).href.split('#')[0])"
        )
        waiting += [link for link in set(links) if link not in seen | set(waiting) and "sort=" not in link]
    assert len(seen) > 10
    assert all(url.startswith(server.panel) for url in seen)


async def test_it_fits_a_phone_and_can_be_read(browser: Browser, server: Served):
    for path in ("/demo/owners", f"/demo/fail/{CANARY}", f"/demo/search/{CANARY}", "/nowhere"):
        await send(server, path)
    scheme = "light" if server.database_url.startswith("sqlite") else "dark"
    context = await browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True
    )
    page = (await opened(context)).page
    await page.goto(server.panel + "/statements")
    statement = await page.locator("tbody a", has_text="LIKE").first.get_attribute("href")
    await page.goto(server.panel + "/")
    scope = await page.locator("tbody a", has_text="/demo/owners").first.get_attribute("href")
    for path in (PATH + "/", PATH + "/statements", PATH + "/transactions", scope, statement):
        await page.goto(server.url + path)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} wide"
        assert await page.evaluate(CONTRASTS) == [], path
    await context.close()


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/^rgba.*, 0\\)$/.test(colour) && colour !== "transparent") return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const text = [...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
    if (!text || !node.checkVisibility() || node.closest(".hidden, .skip, dialog")) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${node.outerHTML.slice(0, 90)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def _other_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith("127.") else address


async def test_others_on_the_network_see_nothing(tmp_path: Path, browser: Browser):
    address = _other_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with served(f"sqlite:///{tmp_path / 'test.db'}", host="0.0.0.0") as server:
        port = httpx.URL(server.url).port
        context = await browser.new_context()
        page = await context.new_page()
        answer = await page.goto(f"http://{address}:{port}{PATH}/")
        assert answer is not None
        assert answer.status == 403
        assert "Requests" not in await page.content()
        assert (await page.goto(f"http://{address}:{port}/health/live")).status == 200
        assert (await page.goto(f"{server.panel}/")).status == 200
        await context.close()


async def test_off_it_is_not_there(tmp_path: Path):
    with served(f"sqlite:///{tmp_path / 'test.db'}", inspector=False) as server:
        for path in ("", "/", "/statements", "/static/inspector.js"):
            assert server.get(PATH + path).status_code == 404
    assert threading.active_count() < 50
