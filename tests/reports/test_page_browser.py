"""The page in a real browser, from disk: what a reader does, and what the canvases then hold."""

import os
import shutil

import numpy as np
import pytest

from ncbench import open_store

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def watched(browser, shown):
    """One page for all tests, and everything that it complained of or asked for."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    page.set_default_timeout(10_000)
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


@pytest.fixture
def page(watched, shown):
    """The protocol ``shown``, with its viewer drawn; each test starts afresh."""
    watched.goto("about:blank")
    watched.set_viewport_size({"width": 1440, "height": 1000})
    watched.goto(f"{(shown.report / 'index.html').as_uri()}#1-shown/0/0/0/1")
    watched.wait_for_selector("section:not([hidden]) [data-drawn='0/0/0/1/normals'][data-sliced]")
    yield watched
    assert watched.complaints == []
    assert {url.split(":")[0] for url in watched.asked} <= {"file", "about", "data", "blob"}


def section(page):
    return page.locator("section:not([hidden])")


def models(page):
    return [title.inner_text() for title in section(page).locator(".board tbody tr:not([hidden]) .title").all()]


def pixels(page, selector):
    """A canvas as (H, W, 4) uint8."""
    width, height, values = page.evaluate(
        """selector => { const canvas = document.querySelector('section:not([hidden])').querySelector(selector);
           const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
           return [canvas.width, canvas.height, Array.from(data)]; }""",
        selector,
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def stored(shown, what, sequence, protocol="shown"):
    """(T, H, W, 3) normals of a sequence as they are stored."""
    store = open_store(
        shown.data / "stores" / "shown" if what == "truth" else shown.data / "predictions" / protocol / what
    )
    return np.stack([frame.normal for frame in store.clip(sequence)]).astype(float)


def colours(normals):
    """As papers colour normals; (…, 4) with alpha 0 where there is none."""
    rgb = np.rint((normals * [1, -1, -1] * 0.5 + 0.5) * 255)
    return np.concatenate([rgb, np.full((*rgb.shape[:-1], 1), 255.0)], -1) * np.any(normals != 0, -1, keepdims=True)


def close(found, expected):
    """Equal but for the rounding of coded normals."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= 1


def degrees_between(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def choice(page, shown):
    """Name of the sequence on the screen, and of the models A and B."""
    names = [result.model for result in shown.tables[1].results]
    chosen = page.evaluate(
        """() => ['clip', 'a', 'b'].map((role) => {
             const select = document.querySelector(`section:not([hidden]) [data-role="${role}"]`);
             return role === 'clip' ? select.selectedOptions[0].text : select.value; })"""
    )
    return chosen[0], names[int(chosen[1])], names[int(chosen[2])]


def wait_drawn(page, state):
    page.wait_for_selector(f"section:not([hidden]) [data-drawn='{state}']")


# ---- the leaderboard ----


def test_click_on_a_head_sorts_the_better_end_first_then_the_other(page, shown):
    table = shown.tables[1]
    titles = list(table.values.index)
    for metric in ("within_11_25", "median"):
        column = table.metrics.index(metric) + 1
        head = section(page).locator(".board thead th").nth(column)
        order = table.values[metric].sort_values(ascending=metric == "median", kind="stable")
        head.locator("button").click()
        assert models(page) == list(order.index)
        assert head.get_attribute("aria-sort") == ("ascending" if metric == "median" else "descending")
        head.locator("button").press("Enter")
        assert models(page)[0] == order.index[-1]
        assert section(page).locator("[aria-sort]").count() == 1
    section(page).locator(".board thead th").first.locator("button").click()
    assert models(page) != titles
    assert sorted(models(page)) == sorted(titles)


def test_rows_without_numbers_stay_last_in_both_directions(page):
    page.locator("[data-role='to-protocol']", has_text="Gaps").click()
    page.wait_for_selector("section:not([hidden])[id='0-gaps'][data-ready]")
    for _ in range(2):
        section(page).locator(".board thead th").nth(1).locator("button").click()
        assert models(page)[-1] == "Truth, blurred"


def test_the_filter_finds_names_and_notes_and_counts(page):
    box = section(page).locator("[data-role='filter']")
    box.fill("FLICK")
    assert models(page) == ["Truth + flicker 5°"]
    assert section(page).locator("[data-role='shown']").inner_text() == "1 of 4 models"
    box.fill("trained on")
    assert len(models(page)) == 1
    box.fill("nobody at all")
    assert models(page) == []
    assert section(page).locator("[data-role='nobody']").is_visible()
    box.fill("")
    assert len(models(page)) == 4


def test_markup_in_names_stays_text(page, shown):
    evil = next(result for result in shown.tables[1].results if result.model == "evil").values.model.title
    assert evil in models(page)
    assert section(page).locator("[data-role='chip']", has_text=evil).count() == 1
    assert evil in section(page).locator("[data-role='a'] option").all_inner_texts()
    assert "a <b>&amp; #1" in section(page).locator("[data-role='clip'] option").all_inner_texts()
    assert page.locator("main img").count() == 0


def test_every_number_leads_to_its_result(page, shown):
    link = section(page).locator(".board td a").first
    first = shown.tables[1].results[0]
    with page.context.expect_page() as opened:
        link.click(modifiers=["Control"])
    assert f'"name": "{first.model}"' in opened.value.content()
    opened.value.close()


# ---- the viewer ----


def test_canvases_hold_the_stored_normals_and_errors(page, shown):
    sequence, a, b = choice(page, shown)
    truth, preds = stored(shown, "truth", sequence)[0], stored(shown, a, sequence)[0]
    close(pixels(page, "[data-tile='truth'] canvas"), colours(truth))
    close(pixels(page, "[data-tile='a'] canvas"), colours(preds))
    close(pixels(page, "[data-role='stage-b']"), colours(stored(shown, b, sequence)[0]))
    error = pixels(page, "[data-tile='a-error'] canvas").astype(float)
    valid = np.any(truth != 0, -1)
    assert ((error[..., 3] > 0) == valid).all()
    # inferno grows brighter all the way
    order = np.argsort(degrees_between(preds, truth)[valid])
    bright = error[valid][order, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(bright) >= -2).all()


def test_frames_are_scrubbed_by_slider_keys_and_play(page, shown):
    sequence, a, _ = choice(page, shown)
    section(page).locator("[data-role='viewer']").focus()
    page.keyboard.press("ArrowRight")
    wait_drawn(page, "0/1/0/1/normals")
    close(pixels(page, "[data-tile='a'] canvas"), colours(stored(shown, a, sequence)[1]))
    page.keyboard.press("End")
    wait_drawn(page, "0/4/0/1/normals")
    page.keyboard.press("ArrowRight")
    assert section(page).locator("[data-role='frame-of']").inner_text() == "5 / 5"
    slider = section(page).locator("[data-role='frame']")
    slider.focus()
    page.keyboard.press("Home")
    wait_drawn(page, "0/0/0/1/normals")
    page.keyboard.press("ArrowRight")
    wait_drawn(page, "0/1/0/1/normals")
    assert slider.get_attribute("aria-valuetext") == "frame 1"
    section(page).locator("[data-role='play']").click()
    wait_drawn(page, "0/3/0/1/normals")
    section(page).locator("[data-role='play']").click()


def test_the_divider_wipes_by_pointer_and_by_keys(page):
    stage, divider = section(page).locator("[data-role='stage']"), section(page).locator("[data-role='divider']")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=3)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"
    clip = section(page).locator("[data-role='stage-a']").evaluate("canvas => canvas.style.clipPath")
    assert float(clip.split()[1].rstrip("%")) == pytest.approx(75, abs=0.5)
    frame = section(page).locator("[data-role='frame-of']").inner_text()
    divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "27"
    divider.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"
    assert section(page).locator("[data-role='frame-of']").inner_text() == frame, "its keys must not scrub"


def probed(page, name):
    cells = section(page).locator(f"[data-role='probe-{name}'] td").all_inner_texts()
    return [float(text.replace("−", "-")) for text in cells[:3]], cells[3]


def test_the_probe_reads_the_stored_vectors(page, shown):
    sequence, a, b = choice(page, shown)
    tile = section(page).locator("[data-tile='truth'] .picture")
    tile.scroll_into_view_if_needed()
    box = tile.bounding_box()
    maps = {name: stored(shown, what, sequence)[0] for name, what in (("truth", "truth"), ("a", a), ("b", b))}
    for x, y in ((3, 5), (40, 20), (63, 47)):
        page.mouse.move(box["x"] + (x + 0.5) * box["width"] / 64, box["y"] + (y + 0.5) * box["height"] / 48)
        assert section(page).locator("[data-role='probe-place']").inner_text() == f"x {x}, y {y} of 64 × 48"
        for name, values in maps.items():
            vector, angle = probed(page, name)
            np.testing.assert_allclose(vector, values[y, x], atol=0.002)
            if name != "truth":
                assert float(angle.rstrip("°")) == pytest.approx(
                    degrees_between(values[y, x], maps["truth"][y, x]), abs=0.2
                )
    section(page).locator("[data-role='viewer']").focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    assert section(page).locator("[data-role='probe-place']").inner_text() == "x 62, y 46 of 64 × 48"


def test_the_column_over_time_is_that_of_the_stored_arrays(page, shown):
    sequence, a, b = choice(page, shown)
    tile = section(page).locator("[data-tile='input'] .picture")
    tile.scroll_into_view_if_needed()
    box = tile.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 20.5 * box["width"] / 64, box["y"] + 9, steps=3)
    page.mouse.up()
    page.wait_for_selector("section:not([hidden]) [data-sliced='0/20/0/1']")
    for name, what in (("truth", "truth"), ("a", a), ("b", b)):
        expected = colours(stored(shown, what, sequence)[:, :, 20].transpose(1, 0, 2))
        close(pixels(page, f"[data-slice='{name}'] canvas"), expected)
    picture = pixels(page, "[data-tile='input'] canvas")
    close(pixels(page, "[data-slice='input'] canvas")[:, 0], picture[:, 20].astype(float))
    slider = section(page).locator("[data-role='column']")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("section:not([hidden]) [data-sliced='0/21/0/1']")


def test_the_flicker_layer_is_the_excess_of_neighbouring_angles(page, shown):
    sequence, a, _ = choice(page, shown)
    section(page).locator("[data-role='layer'][value='flicker']").focus()
    page.keyboard.press("Space")
    wait_drawn(page, "0/0/0/1/flicker")
    truth, preds = stored(shown, "truth", sequence), stored(shown, a, sequence)
    excess = degrees_between(preds[1:], preds[:-1]) - degrees_between(truth[1:], truth[:-1])
    valid = np.any(truth != 0, -1)
    excess = np.where(valid[1:] & valid[:-1], excess, np.nan).mean(0)
    page_values = page.evaluate(
        """async key => { const protocol = await ncbench.data.load(key);
           const clip = protocol.viewer.clips[0];
           return Array.from(await ncbench.timeline.flicker(clip, 'model-0', protocol.viewer.codes)); }""",
        "1-shown/protocol",
    )
    found = np.array([np.nan if value is None else value for value in page_values], float).reshape(48, 64)
    seen = ~np.isnan(excess) & ~np.isnan(found)
    assert seen.mean() > 0.5
    assert np.abs(found - excess)[seen].max() < 0.3
    alpha = pixels(page, "[data-role='stage-a']")[..., 3]
    np.testing.assert_array_equal(alpha > 0, ~np.isnan(found))


def test_hardest_frames_lead_into_the_viewer(page, shown):
    select = section(page).locator("[data-role='hardest-model']")
    select.select_option("2")
    first = section(page).locator("[data-role='hardest'] button").first
    sequence, frame = first.inner_text().rsplit(", frame ", 1)
    first.click()
    page.wait_for_selector(f"section:not([hidden]) [data-drawn*='/{frame}/2/']")
    assert choice(page, shown)[0] == sequence
    page.wait_for_function("frame => location.hash.includes(`/${frame}/2/`)", arg=frame)


def test_a_failed_frame_is_said_and_not_drawn(page):
    page.goto(f"{page.url.split('#')[0]}#0-gaps/0/4/1/0")
    wait_drawn(page, "0/4/1/0/normals")
    assert "no prediction: " in section(page).locator("[data-role='score-a']").inner_text()
    assert not pixels(page, "[data-tile='a'] canvas").any()
    assert probed_verdict(page) == "no prediction"


def test_a_pixel_without_an_answer_is_charged_and_one_without_truth_is_not_looked_at(page):
    error = "([a, b]) => ncbench.panels.errorAt(new Float32Array(a), new Float32Array(b), 0, 90)"
    assert page.evaluate(error, [[0, 0, 0], [0, 0, -1]]) == 90
    assert page.evaluate(error, [[0, -1, 0], [0, 0, -1]]) == pytest.approx(90)
    assert page.evaluate(error, [[0, 0, -1], [0, 0, -1]]) == 0
    assert np.isnan(page.evaluate(error, [[0, 0, -1], [0, 0, 0]]))


def probed_verdict(page):
    return section(page).locator("[data-role='probe-a'] td").last.inner_text()


# ---- plots and looks ----


def test_every_plot_is_drawn_and_models_can_be_left_out(page):
    for kind in ("curve", "area", "histogram", "flicker", "speed", "strip", "slices"):
        card = section(page).locator(f"[data-plot='{kind}']")
        card.scroll_into_view_if_needed()
        card.locator(".main-svg").first.wait_for()
    assert section(page).locator("[data-plot='curve'] .scatterlayer .trace").count() == 4
    chip = section(page).locator("[data-role='chip']").first
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    page.wait_for_selector("section:not([hidden]) [data-plot='curve'][data-drawn='3']")
    assert section(page).locator("[data-plot='curve'] .scatterlayer .trace").count() == 3
    page.locator("[data-role='to-protocol']", has_text="Gaps").click()
    card = page.locator("section[id='0-gaps'] [data-plot='flicker']")
    card.scroll_into_view_if_needed()
    card.locator("[data-role='nothing']").wait_for()


@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_sticks_out_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for key in ("0-gaps", "1-shown"):
        page.evaluate("key => { location.hash = key }", key)
        page.wait_for_selector(f"section:not([hidden])[id='{key}'][data-ready]")
        section(page).locator("[data-plot='slices']").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_follow_the_system_until_somebody_chooses(page):
    page.wait_for_selector("html[data-theme='light']")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme='dark']")
    page.locator("[data-role='theme']").click()
    page.wait_for_selector("html[data-theme='light']")
    page.evaluate("localStorage.clear()")
    page.emulate_media(color_scheme="light")


def test_canvases_are_described_and_controls_are_named(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('section:not([hidden]) :is(canvas, button, select, input)')]
             .filter((one) => !one.getAttribute('aria-label') && !one.labels?.length && !one.textContent.trim())
             .map((one) => one.outerHTML)"""
    )
    assert nameless == []
