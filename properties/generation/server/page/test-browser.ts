import { existsSync } from 'node:fs'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'

const paths = [process.env.INTERNVL_CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

/** Path of Chromium; undefined where there is none. */
export const chromiumPath = paths.find((path) => path && existsSync(path))

/** Without a sandbox, which needs rights that containers lack; the page comes from the server under test. */
export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: chromiumPath!, args: ['--no-sandbox', '--disable-gpu'] })

/** A page of the server, with all that it requested and all errors of its console. */
export interface OpenedPage {
  readonly page: Page
  readonly requests: readonly string[]
  readonly errors: readonly string[]
}

/** Opens an address in a new context. */
export const openPage = async (browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<OpenedPage> => {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })).newPage()
  const [requests, errors]: [string[], string[]] = [[], []]
  page.on('request', (request) => requests.push(request.url()))
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  page.on('pageerror', (error) => errors.push(error.message))
  await page.addInitScript('globalThis.__name = (value) => value') // tsx names functions that run in the page
  await page.goto(url)
  return { page, requests, errors }
}

/** Types a question and sends it. */
export const askQuestion = async (page: Page, text: string): Promise<void> => {
  await page.getByRole('textbox', { name: 'Question' }).fill(text)
  await page.keyboard.press('Enter')
}

/** Texts of all answers after the last of them has ended. */
export const answersOf = async (page: Page): Promise<readonly string[]> => {
  await page.getByRole('button', { name: 'Ask', exact: true }).waitFor()
  return page.locator('.answer .text').allTextContents()
}
