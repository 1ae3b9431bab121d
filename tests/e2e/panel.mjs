// What a user of the library panel sees and does, as JSON: node tests/e2e/panel.mjs URL LIBRARY PICTURES
//
// LIBRARY is a file of many defects, changed on the way and left as it was but for a tag and a licence; pictures of the
// panel are left in the folder PICTURES.

import path from "node:path";

import { load, withPage } from "../../tools/templates/page.mjs";

const [BASE, LIBRARY, PICTURES] = process.argv.slice(2);
const VIEW = { width: 1500, height: 950 };
const MARKUP = "<img src=x onerror=hacked=1>";
const DEFECT = "metal/scratch 1";
const SLOW = 200000; // milliseconds that anything may take on a busy machine

const seen = {};

// What loaders offer once a graph has run, though nobody has opened the panel: how many defects, of none before.
async function offered(page) {
  const values = () => page.evaluate(() => window.app.graph.nodes[0].widgets[0].options.values.length);
  await page.evaluate(() => {
    const node = window.LiteGraph.createNode("ADiffLoadDefect");
    window.app.graph.add(node);
    node.widgets[0].options.values.length = 0;
    window.app.api.dispatchEvent(new CustomEvent("execution_success", { detail: {} }));
  });
  for (const end = Date.now() + SLOW; !(seen.offered = await values()) && Date.now() < end; ) await page.waitForTimeout(100);
  await page.evaluate(() => window.app.graph.clear());
}

const rows = (page) => page.$$eval(".adiff-row", (all) => all.map((row) => row.dataset.key.split("\n")[1]));
const loaders = (page) => page.evaluate(() => window.app.graph.nodes.map((node) => [node.type, node.widgets[0].value]));
const row = (page, name) => page.locator(`.adiff-row[data-key$="${name}"]`);

async function find(page, text) {
  await page.fill(".adiff-search", text);
  await page.waitForTimeout(300);
}

// Waits until the panel says something new that holds a text; what it said before may still be shown.
async function says(page, text) {
  const said = await page.waitForFunction((wanted) => {
    const message = document.querySelector(".adiff-message:not([hidden]):has(> span:not([data-read]))");
    if (!message?.textContent.includes(wanted)) return null;
    message.firstElementChild.dataset.read = "";
    return message.textContent;
  }, text, { timeout: SLOW });
  return said.jsonValue();
}

// How many changes the panel asks the server for during some work.
async function requests(page, work) {
  let count = 0;
  const counted = (request) => { count += request.method() === "POST" && request.url().includes("/adiff/library/") ? 1 : 0; };
  page.on("request", counted);
  await work();
  page.off("request", counted);
  return count;
}

async function shoot(page, name) {
  await page.waitForTimeout(500);
  await page.screenshot({ path: path.join(PICTURES, `${name}.png`) });
}

// Milliseconds of the clock from the click on the tab to its rows.
function opened(page) {
  return page.evaluate(async () => {
    const start = performance.now();
    document.querySelector(".side-bar-button .pi-bullseye").closest("button").click();
    while (!document.querySelector(".adiff-row")) await new Promise(requestAnimationFrame);
    return performance.now() - start;
  });
}

// Milliseconds that the page's thread computes for some work, scripts, styles and layout; what others do meanwhile on the
// machine is not in it.
async function cost(page, work) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const spent = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return 1000 * metrics.find(({ name }) => name === "TaskDuration").value;
  };
  const start = await spent();
  await work();
  const end = await spent();
  await session.detach();
  return end - start;
}

// What a search costs, and how many rows there then are.
async function searched(page, text) {
  const milliseconds = await cost(page, () => page.evaluate(async (wanted) => {
    const search = document.querySelector(".adiff-search");
    search.value = wanted;
    search.dispatchEvent(new Event("input"));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  }, text));
  return { text, milliseconds, rows: await page.locator(".adiff-row").count() };
}

// Scrolls through all of the list: what a step costs, and the most rows that there were.
async function scrolled(page) {
  let [steps, most] = [0, 0];
  const milliseconds = await cost(page, async () => {
    [steps, most] = await page.evaluate(async () => {
      const frame = document.querySelector(".adiff-frame");
      let [count, rows] = [0, 0];
      for (; count * 3 * frame.clientHeight < frame.scrollHeight; count += 1) {
        frame.scrollTop = count * 3 * frame.clientHeight;
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        rows = Math.max(rows, document.querySelectorAll(".adiff-row").length);
      }
      return [count, rows];
    });
  });
  const last = await page.locator(".adiff-row").count();
  await page.evaluate(() => { document.querySelector(".adiff-frame").scrollTop = 0; });
  return { milliseconds: milliseconds / steps, steps, most, last };
}

// The contrast (WCAG 2) of texts with what lies behind them.
function contrasts(page) {
  return page.evaluate(() => {
    const parts = (colour) => {
      const numbers = colour.match(/[\d.]+/g).map(Number);
      const [r, g, b, a = 1] = colour.startsWith("color(") ? [...numbers.slice(0, 3).map((one) => one * 255), numbers[3]] : numbers;
      return [r, g, b, a];
    };
    const over = (top, under) => [0, 1, 2].map((c) => top[c] * top[3] + under[c] * (1 - top[3]));
    const behind = (part) => {
      const layers = [];
      for (let one = part; one; one = one.parentElement) layers.unshift(parts(getComputedStyle(one).backgroundColor));
      return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
    };
    const light = (rgb) => {
      const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const texts = [".adiff-name span", ".adiff-name b", ".adiff-facts", ".adiff-tag", ".adiff-head span", ".adiff-head small",
                   ".adiff-count", "button.adiff-chip span", "button.adiff-chip small", ".adiff-field span", ".adiff-about p",
                   ".adiff-field input", ".adiff-bar h2"];
    return Object.fromEntries(texts.map((name) => {
      const part = document.querySelector(name);
      const under = behind(part);
      const [one, other] = [light(over(parts(getComputedStyle(part).color), under)), light(under)];
      return [name, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
    }));
  });
}

async function asked(page, what, content) {
  const answer = await page.request.post(`${BASE}/adiff/library/${what}`, { data: content });
  return answer.json();
}

async function listed(page) {
  const { libraries } = await (await page.request.get(`${BASE}/adiff/library`)).json();
  return libraries.find((library) => library.name === LIBRARY);
}

async function look(page) {
  seen.opening = await cost(page, async () => { seen.opened = await opened(page); });
  // also of those that were listed before the panel was shown
  await page.waitForFunction(() => [...document.querySelectorAll(".adiff-thumb")].slice(0, 4).every((one) => one.querySelector("img")));
  await shoot(page, "panel");
  seen.count = await page.textContent(".adiff-count");
  seen.searches = [];
  for (const text of ["s", "scratch", "scratch rare", "cc-by", "nothing at all", ""]) seen.searches.push(await searched(page, text));
  seen.scroll = await scrolled(page);
  await find(page, "nothing at all");
  seen.empty = await page.isVisible(".adiff-empty");
  await find(page, "metal scratch");
  seen.found = await rows(page);
  await find(page, "scratch");
  await page.click("button.adiff-chip:has-text('rare')");
  await page.waitForTimeout(300);
  seen.tagged = await page.$$eval(".adiff-row", (all) => all.map((one) => one.textContent.includes("rare")));
  await page.click("button.adiff-chip:has-text('rare')");
}

// A loader's height when it is made, and once it shows its picture; and the picture's width once the properties panel has
// drawn the widgets of the loader, for which it leaves them its own.
function sizes(page) {
  return page.evaluate(async () => {
    const node = window.LiteGraph.createNode("ADiffLoadDefect");
    window.app.graph.add(node);
    const picture = node.widgets.find((widget) => widget.name === "adiff_picture");
    const { element } = picture;
    const made = node.size[1];
    while (!element.style.backgroundImage.startsWith("url(")) await new Promise(requestAnimationFrame);
    const shown = node.size[1];
    picture.width = 100;
    window.app.canvas.setDirty(true, true);
    await new Promise((done) => setTimeout(done, 500));
    const wide = element.getBoundingClientRect().width / window.app.canvas.ds.scale;
    window.app.graph.remove(node);
    return { heights: [made, shown], width: wide / node.size[0] };
  });
}

async function place(page) {
  seen.sizes = await sizes(page);
  await find(page, LIBRARY);
  const canvas = page.locator("#graph-canvas");
  await row(page, "bottle/crack 1").dragTo(canvas, { force: true, targetPosition: { x: 800, y: 300 } });
  await page.waitForTimeout(300);
  seen.dragged = await loaders(page);
  seen.where = await page.evaluate(() => {
    const [x, y] = window.app.graph.nodes[0].pos;
    return window.app.canvas.ds.convertOffsetToCanvas([x, y - window.LiteGraph.NODE_TITLE_HEIGHT]);
  });
  await row(page, "bottle/crack 2").dragTo(canvas, { force: true, targetPosition: { x: 830, y: 350 } });
  await page.waitForTimeout(300);
  seen.dropped = await loaders(page);
  await page.evaluate(() => {
    const [loader] = window.app.graph.nodes;
    const teller = window.LiteGraph.createNode("PrimitiveNode");
    teller.pos = [loader.pos[0], loader.pos[1] - 200];
    window.app.graph.add(teller);
    teller.connect(0, loader, loader.inputs.findIndex((input) => input.widget?.name === "defect"));
  });
  await row(page, "bottle/crack 1").dragTo(canvas, { force: true, targetPosition: { x: 830, y: 350 } });
  await page.waitForTimeout(300);
  seen.told = await loaders(page);
  await page.evaluate(() => window.app.graph.nodes.slice(1).forEach((node) => window.app.graph.remove(node)));
  await find(page, "metal scratch");
  await row(page, DEFECT).last().hover();
  await row(page, DEFECT).last().locator("button").first().click();
  await page.waitForTimeout(1500);
  seen.added = await loaders(page);
  await shoot(page, "graph");
}

async function edit(page) {
  await row(page, "metal/scratch 2").last().click();
  await row(page, DEFECT).last().click(); // the form of another one is open
  await page.fill(".adiff-fields input >> nth=0", "steel");
  await page.fill(".adiff-tags-input input", MARKUP);
  await page.press(".adiff-tags-input input", "Enter");
  await page.fill(".adiff-field:has-text('Licence') input", "CC0-1.0");
  await shoot(page, "form");
  await page.click(".adiff-primary");
  seen.saved = await says(page, "steel/scratch 1");
  await find(page, "steel");
  seen.renamed = { rows: await rows(page), nodes: await loaders(page), text: await row(page, "steel/scratch 1").textContent() };
  await shoot(page, "saved");
  seen.hacked = await page.evaluate(() => window.hacked ?? null);
  seen.hurried = [await requests(page, async () => {
    await page.dblclick(".adiff-bar .adiff-icon >> nth=0"); // the message may be gone by now
    seen.undone = await says(page, DEFECT);
    await page.waitForTimeout(500);
  })];
  await find(page, "metal scratch");
  seen.back = { rows: await rows(page), nodes: await loaders(page) };
}

// A row that stays the same keeps its picture and the focus while the list is read again and others change.
async function stay(page) {
  await find(page, `${LIBRARY} wood scratch`);
  await row(page, "wood/scratch 2").locator("img").waitFor();
  const kept = await row(page, "wood/scratch 2").elementHandle();
  await kept.focus();
  const { state } = await listed(page);
  await asked(page, "edit", { library: LIBRARY, seen: state, edits: { "wood/scratch 1": { tags: ["new here"] } } });
  await page.evaluate(() => document.querySelectorAll(".adiff-bar .adiff-icon")[1].click());
  await row(page, "wood/scratch 1").filter({ hasText: "new here" }).waitFor();
  seen.stayed = await kept.evaluate((one) => [document.activeElement === one, one.querySelectorAll("img").length]);
  seen.order = await page.$$eval(".adiff-ground > *", (all) => all.map((one) => one.getBoundingClientRect().top));
  await find(page, "metal scratch");
}

async function refuse(page) {
  await row(page, DEFECT).last().click();
  await page.fill(".adiff-fields input >> nth=1", "scratch 2");
  await page.click(".adiff-primary");
  await page.waitForSelector(".adiff-error:not([hidden])");
  seen.taken = await page.textContent(".adiff-error");
  await page.fill(".adiff-fields input >> nth=1", "scratch 1");
  await page.fill(".adiff-field:has-text('Author') input", "Grace");
  const { state } = await listed(page);
  await asked(page, "edit", { library: LIBRARY, seen: state, edits: { "wood/scratch 1": { tags: ["from elsewhere"] } } });
  await page.click(".adiff-primary");
  await page.waitForFunction(() => document.querySelector(".adiff-error:not([hidden])")?.textContent.includes("meantime"));
  seen.kept = await page.inputValue(".adiff-field:has-text('Author') input");
  await page.click(".adiff-primary");
  seen.again = await says(page, DEFECT);
}

async function remove(page) {
  await row(page, DEFECT).last().click();
  await page.focus(".adiff-details footer .adiff-danger");
  seen.hurried.push(await requests(page, async () => {
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    seen.removed = await says(page, "deleted");
    await page.waitForTimeout(500);
  }));
  seen.left = await rows(page);
  await page.click(".adiff-link");
  await says(page, "as it was");
  seen.restored = await rows(page);
  await find(page, "demo");
  await page.click(".adiff-row >> nth=0");
  seen.locked = { text: await page.textContent(".adiff-locked"), save: await page.locator(".adiff-primary").count() };
}

// By the Tab key from a row to what can be done with it, and by Enter into its form, which gives the focus back.
async function keys(page) {
  const at = () => page.evaluate(() => {
    const { activeElement: part } = document;
    return part.getAttribute("aria-label") ?? part.value ?? part.dataset.key?.split("\n")[1] ?? part.tagName;
  });
  await find(page, `${LIBRARY} wood scratch`);
  await row(page, "wood/scratch 1").focus();
  seen.keys = [];
  for (const key of ["Tab", "Tab", "Tab", "Tab", "Enter", "Escape", "Enter", "Enter"]) {
    await page.keyboard.press(key);
    await page.waitForTimeout(300);
    seen.keys.push(await at());
  }
  await find(page, "metal scratch");
}

// Picks with Ctrl, Shift, keys and boxes; tags and deletes what is picked; takes both back.
async function several(page) {
  const picked = () => page.$$eval(".adiff-picked", (all) => all.map((one) => one.dataset.key.split("\n")[1]));
  const held = async () => (await listed(page)).defects.map((one) => `${one.product}/${one.defect}`).filter((name) => name.startsWith("metal/scratch"));
  await page.click(".adiff-details header .adiff-icon"); // the form of the step before
  await find(page, "metal scratch");
  const names = await held();
  const own = (name) => page.locator(`.adiff-row[data-key^="${LIBRARY}"][data-key$="${name}"]`);
  await own(names[0]).click({ modifiers: ["Control"] });
  await own(names[2]).click({ modifiers: ["Shift"] });
  seen.several = { names, spanned: await picked() };
  await own(names[2]).focus();
  await page.keyboard.press("Shift+ArrowDown");
  seen.several.walked = await picked();
  await page.keyboard.press(" ");
  seen.several.let_go = await picked();
  await page.fill(".adiff-tags-input input", "batch");
  await page.press(".adiff-tags-input input", "Enter");
  seen.several.heading = await page.textContent(".adiff-several h3");
  await shoot(page, "several");
  seen.several.requests = [await requests(page, async () => {
    await page.click(".adiff-several .adiff-primary");
    seen.several.saved = await says(page, "saved");
  })];
  await find(page, "batch");
  seen.several.tagged = await rows(page);
  seen.several.requests.push(await requests(page, async () => {
    await page.click(".adiff-bar .adiff-icon >> nth=0"); // the message may be gone by now
    seen.several.undone = await says(page, "as they were");
  }));
  seen.several.untagged = await rows(page);
  await find(page, "metal scratch");
  for (const name of names.slice(0, 2)) await own(name).locator(".adiff-pick").click();
  seen.several.requests.push(await requests(page, async () => {
    await page.click(".adiff-several .adiff-danger");
    seen.several.removed = await says(page, "deleted");
  }));
  seen.several.left = await held();
  await page.click(".adiff-bar .adiff-icon >> nth=0");
  await says(page, "as they were");
  seen.several.restored = await held();
  await page.locator(".adiff-row:not(:has(.adiff-pick))").first().click({ modifiers: ["Control"] });
  seen.several.locked = await picked();
  await find(page, `${LIBRARY} metal scratch`);
  await own(names[0]).focus();
  await page.keyboard.press("Control+a");
  seen.several.all = await page.textContent(".adiff-several h3");
  await page.keyboard.press("Escape");
  seen.several.none = await picked();
}

// A subgraph's node that shows the choice of the loader in it: what it says and offers when the defect gets another name;
// null in a front end without subgraphs.
async function nested(page) {
  const able = await page.evaluate(() => {
    const { graph } = window.app;
    if (!graph.convertToSubgraph) return false;
    const { node, subgraph } = graph.convertToSubgraph(new Set([graph.nodes.find((one) => one.type === "ADiffLoadDefect")]));
    const [inner] = subgraph.nodes;
    const slot = inner.inputs.findIndex((input) => input.widget?.name === "defect");
    subgraph.addInput("defect", "COMBO").connect(inner.inputs[slot], inner);
    window.adiffHost = node;
    return node.widgets.length > 0;
  });
  if (!able) {
    seen.nested = null;
    return;
  }
  await page.evaluate((label) => { window.adiffHost.widgets[0].value = label; }, seen.added[1][1]);
  const told = () => page.evaluate(() => {
    const [{ value, options: { values } }] = window.adiffHost.widgets;
    return [value, values.includes(value)];
  });
  seen.nested = [await told()];
  await find(page, "metal scratch");
  await row(page, DEFECT).last().click();
  await page.fill(".adiff-fields input >> nth=0", "steel");
  await page.click(".adiff-primary");
  await says(page, "steel/scratch 1");
  seen.nested.push(await told());
  await page.click(".adiff-link");
  await says(page, DEFECT);
  seen.nested.push(await told());
  seen.inside = await page.evaluate(async () => {
    const { element } = window.adiffHost.subgraph.nodes[0].widgets.find((widget) => widget.name === "adiff_picture");
    await new Promise((done) => setTimeout(done, 1000));
    return element.style.backgroundImage;
  });
}

async function themes(page) {
  await find(page, "bottle crack");
  await row(page, "bottle/crack 2").click();
  for (const name of ["dark", "light"]) {
    await page.evaluate((chosen) => window.app.extensionManager.setting.set("Comfy.ColorPalette", chosen), name);
    await shoot(page, name);
    seen.contrasts = { ...seen.contrasts, [name]: await contrasts(page) };
  }
  await page.evaluate(() => window.app.extensionManager.setting.set("Comfy.ColorPalette", "dark"));
}

// Whether Save can be clicked without scrolling in a window of 1,500 x 600 pixels at a zoom of 150 %, if the bar fits.
async function low(page) {
  await page.setViewportSize({ width: 1000, height: 400 });
  const needed = await page.$eval(".adiff-library", (panel) => Math.ceil(panel.getBoundingClientRect().bottom));
  if (needed > 400) await page.setViewportSize({ width: 1000, height: needed }); // an older front end's own bar is as high
  await shoot(page, "low");
  seen.low = await page.$eval(".adiff-primary", (save) => {
    const { left, top, width, height } = save.getBoundingClientRect();
    return [top + 1, top + height - 1].map((y) => save.contains(document.elementFromPoint(left + width / 2, y)));
  });
  await page.setViewportSize(VIEW);
}

async function otherLanguage(page) {
  await page.evaluate(() => window.app.extensionManager.setting.set("Comfy.Locale", "ja"));
  await load(page, BASE);
  await opened(page);
  seen.japanese = await page.textContent(".adiff-bar h2");
  await shoot(page, "ja");
  await page.evaluate(() => window.app.extensionManager.setting.set("Comfy.Locale", "en"));
}

await withPage(VIEW, async (page) => {
  page.setDefaultTimeout(SLOW);
  await load(page, BASE);
  await page.evaluate(() => window.app.graph.clear());
  for (const step of [offered, look, place, edit, stay, keys, refuse, remove, several, nested, themes, low, otherLanguage]) {
    await step(page).catch((error) => { throw new Error(`${step.name}: ${error.message}\n${JSON.stringify(seen)}`); });
  }
});
console.log(JSON.stringify(seen));
