// What the browser tests share: Chromium, axe-core in its pages, and JSON in and out.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-component-update"];

// The order on standard input; `work` gets it with a browser, and its result is printed.
export async function run(work) {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const order = JSON.parse(Buffer.concat(chunks).toString());
  const browser = await chromium.launch({ executablePath: order.chromium, args: FLAGS });
  try {
    console.log(JSON.stringify(await work(browser, order)));
  } finally {
    await browser.close();
  }
}

// Every violation of axe's rules, best practices included, and text that the page cuts off.
export async function violations(page) {
  if (await page.evaluate(() => !window.axe)) await page.evaluate(axe);
  const found = await page.evaluate(
    async () => (await window.axe.run({ resultTypes: ["violations"] })).violations);
  const named = found.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${id} (${impact}): ${node.target.join(" ")}`));
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  return overflow > 0 ? [...named, `scrolls sideways by ${overflow} px`] : named;
}
