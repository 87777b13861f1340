// Uses the account pages by keyboard alone: {chromium, url, lang, token, weak, strong}.
// Prints what was seen after each step.
import { run, violations } from "./browser.mjs";

const seen = (page) => page.evaluate(() => ({
  title: document.title,
  focus: document.activeElement.id,
  message: document.getElementById("message").textContent,
  form: !document.getElementById("form").hidden,
  type: document.getElementById("password")?.type,
  invalid: document.getElementById("password")?.getAttribute("aria-invalid"),
  described: document.getElementById("password")?.getAttribute("aria-describedby"),
  hash: location.hash,
}));

async function press(page, ...keys) {
  for (const key of keys) await page.keyboard.press(key);
}

async function answered(page, key) {
  await Promise.all([page.waitForResponse("**/api/v1/**"), press(page, key)]);
  await page.waitForFunction(() => !document.getElementById("button").disabled);
}

await run(async (browser, { url, lang, token, weak, strong }) => {
  const page = await browser.newPage({ locale: lang });
  const steps = {};
  const note = async (name) => {
    steps[name] = { ...await seen(page), wrong: await violations(page) };
  };

  await page.goto(`${url}/account/reset-password#${token}`);
  const order = [];
  for (let stop = 0; stop < 3; stop += 1) {
    await press(page, "Tab");
    order.push((await seen(page)).focus);
  }
  await press(page, "Shift+Tab", "Space");
  await note("shown");
  await press(page, "Shift+Tab");
  await page.keyboard.type(weak);
  await answered(page, "Enter");
  await note("weak");
  await page.keyboard.type(strong);
  await note("typing");
  await press(page, "Control+A");
  await page.keyboard.type(strong);
  await answered(page, "Enter");
  await note("done");

  await page.goto(`${url}/account/verify-email#${token}`);
  await press(page, "Tab");
  await answered(page, "Space");
  await note("dead");

  await page.goto(`${url}/account/invitation`);
  await note("incomplete");
  return { order, steps };
});
