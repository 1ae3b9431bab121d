// What a browser shows of the pack, as JSON: node tests/e2e/browser.mjs URL PACK PICTURES
//
// Opens every template as the template browser offers it, runs two, and opens one in other languages and all in Nodes 2.0,
// where the front end has them; leaves a picture of each in the folder PICTURES.

import path from "node:path";

import { load, open, run, withPage } from "../../tools/templates/page.mjs";

const [BASE, PACK, PICTURES] = process.argv.slice(2);
const RUN = "Generate from a drawn mask";
const [CHOSEN, OTHER] = ["demo (built in) / metal / scratch", "demo (built in) / tile / stain"]; // RUN's, and another
const LIVE = "Find the guidance"; // of a node that shows live pictures and gives one
const LANGUAGES = ["ko", "ja"];
const MODERN = "Comfy.VueNodes.Enabled"; // "Nodes 2.0": elements of the page instead of a drawing
const VIEW = { width: 1700, height: 1000 };

const seen = { templates: {}, languages: {}, pictures: [], modern: {} };

async function json(page, url) {
  const answer = await page.request.get(BASE + url);
  if (!answer.ok()) throw new Error(`${url}: ${answer.status()}`);
  return answer.json();
}

async function shoot(page, name) {
  await page.evaluate(() => {
    const { canvas, ds } = window.app.canvas;
    const boxes = window.app.graph.nodes.map((node) => [...node.pos, ...node.size]);
    const [left, top] = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])) - 60);
    const [right, bottom] = [0, 1].map((axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2])));
    ds.scale = Math.min((canvas.clientWidth - 200) / (right - left), (canvas.clientHeight - 200) / (bottom - top));
    ds.offset[0] = 100 / ds.scale - left;
    ds.offset[1] = 100 / ds.scale - top;
    window.app.canvas.min_font_size_for_lod = 0; // draws texts however small
    window.app.canvas.setDirty(true, true);
  });
  await page.waitForTimeout(700);
  await page.screenshot({ path: path.join(PICTURES, `${name}.png`) });
}

// A node as the page names it: {type, title, inputs, outputs, widgets}.
function named(page) {
  return page.evaluate(() => window.app.graph.nodes.map((node) => ({
    type: node.type,
    title: node.title,
    inputs: (node.inputs ?? []).map((one) => one.localized_name ?? one.label ?? one.name),
    outputs: (node.outputs ?? []).map((one) => one.localized_name ?? one.label ?? one.name),
    widgets: (node.widgets ?? []).map((one) => one.label ?? one.name),
  })));
}

async function watched(page) {
  await page.evaluate((base) => {
    window.adiffSeen = { previews: 0, progress: 0 };
    const { api } = window.app;
    api.addEventListener("b_preview", () => { window.adiffSeen.previews += 1; });
    api.addEventListener("progress", () => { window.adiffSeen.progress += 1; });
  }, BASE);
  await run(page, BASE);
  const pictured = () => window.app.graph.nodes.filter((node) => ["ADiffSavePairs", "PreviewImage"].includes(node.type))
    .every((node) => node.imgs?.length); // which come from the server after the run's end
  await page.waitForFunction(pictured, undefined, { timeout: 30_000 }).catch(() => {});
  return page.evaluate(() => ({
    ...window.adiffSeen,
    shown: Object.fromEntries(window.app.graph.nodes.filter((node) => node.imgs?.length).map(
      (node) => [node.type, node.imgs.map((image) => [image.naturalWidth, image.naturalHeight])],
    )),
  }));
}

function set(page, name, value) {
  return page.evaluate(([key, chosen]) => window.app.extensionManager.setting.set(key, chosen), [name, value]);
}

// Nodes whose elements are taller than the graph says, in pixels, and the pictures of Load Defect.
function elements(page, graph) {
  return page.evaluate((saved) => {
    const { scale } = window.app.canvas.ds;
    const boxes = saved.nodes.map((node) => [node, document.querySelector(`[data-node-id="${node.id}"]`)]);
    return {
      missing: boxes.filter(([, box]) => !box).map(([node]) => node.type),
      grown: boxes.filter(([, box]) => box).map(([node, box]) => [
        node.type, Math.round(box.getBoundingClientRect().height / scale - window.LiteGraph.NODE_TITLE_HEIGHT - node.size[1]),
      ]).filter(([, more]) => more >= 20), // less lies within the group's margin
      invalid: [...document.querySelectorAll("[data-node-id] [aria-invalid=true], [data-node-id] .p-invalid")].length,
      pictures: window.app.graph.nodes.filter((node) => node.type === "ADiffLoadDefect").map((node) => {
        const { element } = node.widgets.find((widget) => widget.name === "adiff_picture");
        const { height } = element.getBoundingClientRect();
        return [element.style.backgroundImage.startsWith("url("), Math.round(height / scale)];
      }),
    };
  }, graph);
}

// What a node that has shown live pictures shows once it has given its own: the pictures' addresses.
async function given(page, graph, steps, name) {
  await open(page, graph);
  const id = await page.evaluate((number) => {
    const few = { count: 1, steps: number }; // another number than before: the server sends no picture that it has kept
    for (const widget of window.app.graph.nodes.flatMap((node) => node.widgets ?? [])) {
      widget.value = few[widget.name] ?? widget.value;
    }
    return window.app.graph.nodes.find((node) => node.type === "ADiffFitGuidance").id;
  }, steps);
  await run(page, BASE);
  await shoot(page, name); // Nodes 2.0 has no elements for what is not in sight
  return page.evaluate((number) => {
    const box = document.querySelector(`[data-node-id="${number}"]`);
    const pictures = box ? [...box.querySelectorAll("img")] : window.app.graph.getNodeById(number).imgs;
    return pictures.map((picture) => picture.src);
  }, id);
}

// The zoom before and after a turn of the wheel over Load Defect's picture.
async function zoomed(page) {
  const box = await page.locator(".adiff-of-node").first().boundingBox();
  const zoom = () => page.evaluate(() => window.app.canvas.ds.scale);
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  const before = await zoom();
  await page.mouse.wheel(0, -120);
  await page.waitForTimeout(500);
  return [before, await zoom()];
}

// The defects whose pictures are to be seen.
function pictured(page) {
  return page.$$eval(".adiff-of-node", (all) => all.filter((one) => one.getBoundingClientRect().height).map(
    (one) => new URL(one.style.backgroundImage.slice(5, -2)).searchParams.get("defect"),
  ));
}

// The pictures before and after choosing another defect in Nodes 2.0, and once that is taken back.
async function undone(page) {
  const seenNow = async () => ({
    pictures: await pictured(page),
    values: await page.evaluate(() => window.app.graph.nodes.filter((node) => node.type === "ADiffLoadDefect").map(
      (node) => node.widgets.find((widget) => widget.name === "defect").value,
    )),
  });
  const steps = [await seenNow()];
  await page.locator("[data-node-id]").getByText(CHOSEN).first().click();
  await page.getByText(OTHER).last().click();
  await page.waitForTimeout(1500);
  steps.push(await seenNow());
  await page.mouse.click(VIEW.width / 2, VIEW.height - 60);
  await page.keyboard.press("Control+z");
  await page.waitForTimeout(2000);
  return [...steps, await seenNow()];
}

await withPage(VIEW, async (page) => {
  page.on("response", (answer) => {
    if (answer.url().includes("/adiff/preview")) {
      const defect = new URL(answer.url()).searchParams.get("defect");
      seen.pictures.push([defect, answer.status(), answer.headers()["content-type"]]);
    }
  });
  await load(page, BASE);
  const names = (await json(page, "/api/workflow_templates"))[PACK] ?? [];
  const graphs = {};
  for (const name of names.sort()) {
    graphs[name] = await json(page, `/api/workflow_templates/${PACK}/${encodeURIComponent(name)}.json`);
    const missing = await open(page, graphs[name]);
    const { output, workflow } = await page.evaluate(() => window.app.graphToPrompt());
    seen.templates[name] = { missing, prompt: output, workflow };
    if (name === RUN) seen.run = await watched(page);
    await shoot(page, name);
    if (name === RUN) seen.zoom = [await zoomed(page)];
  }
  seen.given = [await given(page, graphs[LIVE], 1, `${LIVE} (run)`)];
  for (const language of LANGUAGES) {
    await set(page, "Comfy.Locale", language);
    await load(page, BASE);
    await open(page, graphs[RUN]);
    seen.languages[language] = await named(page);
    await shoot(page, `${RUN} (${language})`);
  }
  await set(page, "Comfy.Locale", "en");
  // an older front end has a hidden draft of it, nodes without contents
  const known = await page.evaluate((key) => window.app.ui.settings.settingsLookup[key]?.type === "boolean", MODERN);
  if (known) {
    await load(page, BASE);
    await set(page, MODERN, true);
    for (const [name, graph] of Object.entries(graphs)) {
      await open(page, graph);
      await shoot(page, `${name} (Nodes 2.0)`);
      seen.modern[name] = await elements(page, graph);
    }
    await open(page, graphs[RUN]);
    await shoot(page, `${RUN} (to be changed)`);
    seen.undone = await undone(page);
    seen.zoom.push(await zoomed(page));
    seen.given.push(await given(page, graphs[LIVE], 2, `${LIVE} (run, Nodes 2.0)`));
    await set(page, MODERN, false);
  }
});
console.log(JSON.stringify(seen));
