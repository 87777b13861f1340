// Checks pages with axe-core: {chromium, widths, schemes, pages: [{name, lang, url or html}]}.
// Prints a list of what is wrong, empty when nothing is.
import { run, violations } from "./browser.mjs";

async function open(page, { url, html }) {
  // A new document, also where only the fragment differs.
  await page.goto("about:blank");
  if (html) await page.setContent(html);
  else await page.goto(url);
}

async function newTab(browser, locale) {
  const page = await browser.newPage({ locale });
  // Of the viewers of the API docs, only the pages around them are ours.
  await page.route("**/static/vendor/**", (route) => route.abort());
  return page;
}

await run(async (browser, { pages, widths, schemes }) => {
  const found = [];
  // One page for each language: to open a new one takes longer than to check it.
  const tabs = {};
  for (const each of pages) {
    tabs[each.lang] ??= await newTab(browser, each.lang);
    const page = tabs[each.lang];
    await open(page, each);
    const lang = await page.evaluate(() => document.documentElement.lang);
    if (lang !== each.lang) found.push(`${each.name}: lang is ${lang}`);
    for (const colorScheme of schemes) {
      await page.emulateMedia({ colorScheme });
      for (const width of widths) {
        await page.setViewportSize({ width, height: 800 });
        const wrong = await violations(page);
        found.push(...wrong.map((one) => `${each.name} ${colorScheme} ${width}: ${one}`));
      }
    }
  }
  return found;
});
