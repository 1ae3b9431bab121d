// A browser on ComfyUI's page, for pictures of the graphs and for tests.
//
//   npm install --prefix /somewhere playwright-core
//   NODE_PATH=/somewhere/node_modules node ...
//
// needs: a Chromium (CHROMIUM, else /usr/bin/chromium).

import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";

const { chromium } = createRequire(path.join(process.env.NODE_PATH ?? process.cwd(), "_"))("playwright-core");
const PATIENCE = 240000; // milliseconds until the page must have the nodes
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"];

// Calls work(page) with an empty profile; nothing of the browser stays.
export async function withPage(viewport, work) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "page-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, viewport, args: ARGUMENTS,
  });
  try {
    return await work(browser.pages()[0] ?? (await browser.newPage()));
  } finally {
    await browser.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
}

// Loads ComfyUI's page and waits until it knows our nodes.
export async function load(page, base) {
  await page.goto(`${base}/`, { waitUntil: "domcontentloaded", timeout: PATIENCE });
  const known = () => window.app?.graph && window.app.extensionManager && window.LiteGraph?.registered_node_types?.ADiffKSampler;
  await page.waitForFunction(known, null, { timeout: PATIENCE });
  await page.waitForTimeout(2000);
  await page.keyboard.press("Escape"); // the template browser of a first start
}

// Opens a graph (UI format); returns the types of nodes that are not there.
export async function open(page, graph) {
  const missing = await page.evaluate(async (loaded) => {
    await window.app.loadGraphData(loaded);
    return window.app.graph.nodes.map((node) => node.type).filter((type) => !window.LiteGraph.registered_node_types[type]);
  }, graph);
  await page.waitForTimeout(1500);
  return missing;
}

// Queues the graph as the button does and waits for its end; throws what a node said instead of a result.
export async function run(page, base) {
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  for (;;) {
    await page.waitForTimeout(500);
    const queue = await (await page.request.get(`${base}/queue`)).json();
    if (!queue.queue_running.length && !queue.queue_pending.length) break;
  }
  const failed = await page.evaluate(() => window.app.lastExecutionError ?? window.app.lastNodeErrors);
  if (failed && Object.keys(failed).length) throw new Error(JSON.stringify(failed).slice(0, 500));
  await page.waitForTimeout(2000);
}
