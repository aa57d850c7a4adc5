import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { kill } from 'node:process'
import { fileURLToPath } from 'node:url'
import type { Browser, Locator, Page } from 'playwright-core'
import sharp from 'sharp'
import { createApp } from '../../../../generation/server/create-app.js'
import { createLogger } from '../../../../generation/server/request-log.js'
import type { ServerContext } from '../../../../generation/server/server-context.js'
import { ask, imageUrl, post, question, startServer } from '../test-server.js'
import { answersOf, askQuestion, chromiumPath, launch, openPage } from './test-browser.js'

const demo = (name: string): string => fileURLToPath(new URL(`../../../../generation/demo/${name}.png`, import.meta.url))

const video = fileURLToPath(new URL('../../../processors/videos/b-frames.mp4', import.meta.url))

const pngUrl = async (width: number, height: number): Promise<string> => {
  const image = sharp({ create: { width, height, channels: 3, background: '#d62828' } })
  return `data:image/png;base64,${(await image.png().toBuffer()).toString('base64')}`
}

describe('server: the page', () => {
  let server: Awaited<ReturnType<typeof startServer>>
  before(async () => {
    server = await startServer({ defaults: { minNewTokens: 2000 } }) // an answer ends only where the page ends it
  })
  after(() => server.close())

  it('is one HTML file that may load nothing else; ui: false serves none', async () => {
    const response = await fetch(server.url)
    const html = await response.text()
    assert.match(response.headers.get('content-type') ?? '', /^text\/html/)
    assert.match(html, /<meta http-equiv="content-security-policy" content="default-src 'none'; script-src 'sha256-/)
    assert.deepEqual(html.match(/<(script|link|img)[^>]*\s(src|href)="(?!data:)/g), null)
    const context = { metrics: { onRequest: () => undefined } } as unknown as ServerContext
    const app = createApp(context, { ui: false }, createLogger({ logLevel: 'silent' }))
    assert.equal((await app.request('http://127.0.0.1/', { headers: { host: '127.0.0.1' } })).status, 404)
  })

  it('POST /tiles counts the tiles and tokens that a chat request with the same fields has', async () => {
    const [wide, tall] = await Promise.all([pngUrl(600, 300), pngUrl(100, 310)])
    const low = { role: 'user', content: [{ type: 'image_url', image_url: { url: wide, detail: 'low' } }] }
    const cases = [
      [{ messages: [question('Hi', wide)], max_patches: 6 }, [[2, 1, 3]]],
      [
        { messages: [question('Hi', wide, tall)], max_patches: 4 },
        [
          [2, 1, 3],
          [1, 3, 4]
        ]
      ],
      [{ messages: [low] }, [[1, 1, 1]]],
      [{ messages: [question('Hi')] }, []]
    ] as const
    for (const [body, expected] of cases) {
      const { data, tokens } = (await post(server.url, '/tiles', body)).body
      const { usage } = (await ask(server.url, { ...body, max_tokens: 1 })).body
      assert.deepEqual(
        data.map((row: Record<string, number>) => [row.columns, row.rows, row.tiles]),
        expected
      )
      assert.equal(tokens, usage.prompt_tokens_details.image_tokens)
    }
    const { error } = (await post(server.url, '/tiles', { messages: [question('Hi', 'data:image/png;base64,AAAA')] })).body
    assert.equal(error.param, 'messages[0].content[0].image_url.url')
  })

  const reason = chromiumPath ? '' : ' (skipped: Chromium is not installed; apt-get install chromium)'
  describe(`in a browser${reason}`, () => {
    let browser: Browser
    before(async function () {
      if (!chromiumPath) return this.skip()
      browser = await launch()
    })
    after(() => browser?.close())

    const tokensOf = (page: Page): Locator => page.getByRole('listbox').getByRole('option')
    const setting = async (page: Page, label: string, value: string): Promise<void> => page.getByLabel(label).fill(value)

    it('image, question, stream, stop, next turn', async () => {
      const { page, requests, errors } = await openPage(browser, server.url)
      await page.getByText('float32').waitFor()
      assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'internvl-demo')
      await page.getByText('Settings').click()
      await setting(page, 'Longest answer', '12')
      await setting(page, 'Tiles of an image', '6')
      const name = 'wide.png'
      const buffer = await sharp(demo('shapes')).resize(448, 224, { fit: 'fill' }).png().toBuffer()
      await page.setInputFiles('input[type=file]', { name, mimeType: 'image/png', buffer })
      await page.getByText('2 × 1 tiles of 112 × 112 pixels and a thumbnail, 16 tokens each: 48 tokens').waitFor()
      assert.deepEqual(await page.locator('.tile').allTextContents(), ['1 16 tokens', '2 16 tokens'])

      await askQuestion(page, 'Describe the image.')
      const [first] = await answersOf(page)
      const messages = [question('Describe the image.', `data:image/png;base64,${buffer.toString('base64')}`)]
      const alone = await ask(server.url, { messages, max_tokens: 12, max_patches: 6 })
      assert.equal(first, alone.body.choices[0].message.content)
      await page.getByText(/^12 tokens · \d.* tokens\/s · first after .* · prompt \d+ tokens, 48 of images/).waitFor()

      await page.getByLabel('Token probabilities').check()
      const tokens = tokensOf(page)
      assert.equal(await tokens.count(), 12)
      await tokens.first().focus()
      await page.keyboard.press('ArrowRight')
      assert.equal(await tokens.nth(1).getAttribute('aria-selected'), 'true')
      assert.match((await tokens.nth(1).getAttribute('aria-label')) ?? '', /^\S+, [\d.]+ %; alternatives: /)
      assert.ok((await page.locator('.alternative').count()) >= 5)
      await tokens.last().hover()
      assert.equal(await page.getByRole('tooltip').count(), 1)
      await page.getByLabel('Token probabilities').uncheck()

      await setting(page, 'Longest answer', '2000')
      await askQuestion(page, 'What is at the top right?')
      await page.locator('.answer .text').nth(1).filter({ hasText: /\w/ }).waitFor()
      await page.getByRole('button', { name: 'Stop' }).click()
      await page.getByText(/· stopped/).waitFor()
      const [, stopped] = await answersOf(page)
      assert.ok(stopped!.length > 0)
      await server.engine.tokenize({ prompt: { text: 'x' } }) // the engine has read the abort before
      assert.equal(server.engine.stats().requests.aborted, 1)

      await setting(page, 'Longest answer', '5')
      await askQuestion(page, 'Are you sure?')
      assert.equal((await answersOf(page)).length, 3)
      await page.getByText(/^5 tokens .* \d+ reused/).waitFor()
      assert.deepEqual(errors, [])
      const hosts = new Set(
        requests
          .map((url) => new URL(url))
          .filter(({ protocol }) => protocol !== 'data:')
          .map(({ origin }) => origin)
      )
      assert.deepEqual([...hosts], [server.url])
      await page.context().close()
    })

    it('a video is shown with its frames and tokens, and asked about', async () => {
      const { page, errors } = await openPage(browser, server.url)
      await page.getByText('Settings').click()
      await setting(page, 'Longest answer', '6')
      await setting(page, 'Frames of a video', '2')
      await page.setInputFiles('input[type=file]', video)
      await page.getByText('2 frames of 112 × 112 pixels, 16 tokens each: 32 tokens').waitFor()
      assert.equal(await page.locator('figure video').getAttribute('aria-label'), 'b-frames.mp4')
      assert.equal(await page.locator('.tile').count(), 0)
      await askQuestion(page, 'Describe the video.')
      const [text] = await answersOf(page)
      const url = `data:video/mp4;base64,${(await readFile(video)).toString('base64')}`
      const content = [
        { type: 'video_url', video_url: { url } },
        { type: 'text', text: 'Describe the video.' }
      ]
      const { body } = await ask(server.url, { messages: [{ role: 'user', content }], num_frames: 2, max_tokens: 6 })
      assert.equal(text, body.choices[0].message.content)
      await page.getByText(/prompt \d+ tokens, 32 of images/).waitFor()
      assert.deepEqual(errors, [])
      await page.context().close()
    })

    it('pasted and dropped images are attached and removed; other files are refused', async () => {
      const { page } = await openPage(browser, server.url)
      const url = await imageUrl('circle')
      const transfer = (name: string, type: string) =>
        page.evaluateHandle(
          async ([data, fileName, mime]) => {
            const transfer = new DataTransfer()
            const bytes = Uint8Array.from(atob(data!.split(',')[1]!), (character) => character.charCodeAt(0))
            transfer.items.add(new File([bytes], fileName!, { type: mime! }))
            return transfer
          },
          [url, name, type]
        )
      await page.dispatchEvent('body', 'drop', { dataTransfer: await transfer('dropped.png', 'image/png') })
      await page.getByRole('button', { name: 'Remove dropped.png' }).waitFor()
      await page.evaluate(
        (clipboardData) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true })),
        await transfer('pasted.png', 'image/png')
      )
      await page.getByRole('button', { name: 'Remove pasted.png' }).click()
      assert.equal(await page.getByRole('button', { name: 'Remove pasted.png' }).count(), 0)
      await page.dispatchEvent('body', 'drop', { dataTransfer: await transfer('notes.txt', 'text/plain') })
      await page.getByRole('alert').filter({ hasText: 'notes.txt: neither an image nor a video' }).waitFor()
      await page.context().close()
    })

    it('boxes of an answer are shown over the image; an error is shown and the question can be asked again', async () => {
      const { page } = await openPage(browser, server.url)
      const texts = ['<ref>', 'star', '</ref>', '<box>', '[[500, 0, 900, 400]]', '</box>']
      const chunks = texts.map((token) => ({
        choices: [
          {
            delta: { content: token.startsWith('<') ? '' : token },
            logprobs: { content: [{ token, logprob: 0, top_logprobs: [] }] },
            finish_reason: null
          }
        ]
      }))
      const end = { choices: [{ delta: {}, logprobs: null, finish_reason: 'stop' }] }
      const body = [...[...chunks, end].map((chunk) => JSON.stringify(chunk)), '[DONE]']
        .map((data) => `data: ${data}\n\n`)
        .join('')
      const error = JSON.stringify({ error: { message: '64 requests wait already.' } })
      const replies = [
        { status: 429, contentType: 'application/json', body: error },
        { status: 200, contentType: 'text/event-stream', body }
      ]
      await page.route('**/v1/chat/completions', (route) => route.fulfill(replies.shift()!))
      await page.setInputFiles('input[type=file]', demo('shapes'))
      await askQuestion(page, 'Where is the star?')
      await page.getByRole('alert').filter({ hasText: '64 requests wait already.' }).waitFor()
      await page.getByRole('button', { name: 'Ask again' }).click()
      await page.getByRole('checkbox', { name: 'Boxes' }).waitFor()
      const [box, image] = [(await page.locator('.box').boundingBox())!, (await page.locator('.stage img').boundingBox())!]
      const shares = [
        (box.x - image.x) / image.width,
        (box.y - image.y) / image.height,
        box.width / image.width,
        box.height / image.height
      ]
      for (const [i, share] of [0.5, 0, 0.4, 0.4].entries()) assert.ok(Math.abs(shares[i]! - share) < 0.01, `${shares}`)
      assert.equal(await page.locator('mark').textContent(), 'star')
      await page.getByRole('checkbox', { name: 'Boxes' }).uncheck()
      assert.equal(await page.locator('.box').count(), 0)
      await page.context().close()
    })

    it('a chosen token gets its heat map over the image; Escape and another choice abort; an error is said', async () => {
      const { page, errors } = await openPage(browser, server.url)
      await page.getByText('Settings').click()
      await setting(page, 'Longest answer', '3')
      await page.setInputFiles('input[type=file]', demo('shapes'))
      await askQuestion(page, 'What color is the shape at the top left?')
      await answersOf(page)
      await page.getByLabel('Token probabilities').check()
      await page.getByText(/click it, or press Enter, for its heat map/).waitFor()
      const panel = page.getByRole('region', { name: 'Heat map of a token' })
      const status = panel.getByRole('status')
      assert.equal(await status.textContent(), 'Choose a token of an answer.')
      const texts = (await tokensOf(page).evaluateAll((list) => list.map((item) => item.textContent))) as string[]

      // requests that the test lets wait until the page aborts them
      const failed: string[] = []
      page.on('requestfailed', (request) => failed.push(request.url()))
      await page.route('**/v1/explain', () => undefined)
      await tokensOf(page).first().focus()
      await page.keyboard.press('Enter')
      await panel.getByRole('progressbar', { name: 'The heat map is computed' }).waitFor()
      assert.equal(await tokensOf(page).first().getAttribute('aria-current'), 'true')
      await page.keyboard.press('Escape')
      await status.filter({ hasText: 'Stopped.' }).waitFor()
      await page.keyboard.press('Enter')
      await panel.getByRole('progressbar').waitFor()
      await tokensOf(page).nth(1).click()
      await tokensOf(page).nth(1).and(page.locator('[aria-current=true]')).waitFor()
      await panel.getByRole('button', { name: 'Stop the heat map' }).click()
      await status.filter({ hasText: 'Stopped.' }).waitFor()
      while (failed.length < 3) await page.waitForEvent('requestfailed') // the browser may tell it after the page
      assert.equal(failed.length, 3)

      await page.unroute('**/v1/explain')
      await panel.getByRole('combobox', { name: 'Heat map by' }).selectOption('attention')
      await status.filter({ hasText: `Heat map of “${texts[1]!.trim()}” by attention.` }).waitFor()
      await tokensOf(page).first().click()
      await status.filter({ hasText: `Heat map of “${texts[0]!.trim()}” by attention.` }).waitFor()
      const url = `data:image/png;base64,${(await readFile(demo('shapes'))).toString('base64')}`
      const messages = [question('What color is the shape at the top left?', url)]
      const explained = { messages, method: 'attention', token: 0, answer: texts[0] }
      const [part] = (await post(server.url, '/v1/explain', explained)).body.data
      const map = page.locator('.layer > img')
      assert.equal(await map.getAttribute('src'), part.heat_map)
      assert.deepEqual(await map.boundingBox(), await page.locator('.stage > img').boundingBox())
      await page.getByRole('checkbox', { name: 'Heat map' }).uncheck()
      assert.equal(await map.count(), 0)
      await tokensOf(page).first().press('Enter') // chosen again: no more
      await status.filter({ hasText: 'Choose a token of an answer.' }).waitFor()
      assert.deepEqual(errors, [])

      // the share done is shown while a map is computed
      const shown = page.evaluate(
        () =>
          new Promise<readonly (readonly [text: string | null, value: number, max: number])[]>((resolve) => {
            const bars: [string | null, number, number][] = []
            new MutationObserver((_, observer) => {
              const bar = document.querySelector<HTMLProgressElement>('.heat progress[value]')
              if (bar) bars.push([bar.getAttribute('aria-valuetext'), bar.value, bar.max])
              else if (bars.length > 0) {
                observer.disconnect()
                resolve(bars)
              }
            }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true })
          })
      )
      await panel.getByRole('combobox', { name: 'Heat map by' }).selectOption('occlusion')
      await tokensOf(page).nth(1).press('Enter')
      await status.filter({ hasText: `Heat map of “${texts[1]!.trim()}” by occlusion.` }).waitFor()
      const bars = await shown
      assert.ok(
        bars.every(([text, value, max]) => text === `${Math.floor((100 * value) / max)} %`),
        JSON.stringify(bars)
      )
      assert.ok(new Set(bars.map(([, value]) => value)).size > 1, JSON.stringify(bars))
      assert.equal(await panel.getByRole('progressbar').count(), 0)
      await tokensOf(page).nth(1).press('Enter') // chosen again: no more
      await panel.getByRole('combobox', { name: 'Heat map by' }).selectOption('attention')

      // the server ends its work too
      await panel.getByRole('combobox', { name: 'Heat map by' }).selectOption('occlusion')
      const { pid } = server.engine.stats()
      kill(pid!, 'SIGSTOP') // the map would be ready before the key is pressed
      try {
        await Promise.all([page.waitForRequest('**/v1/explain'), tokensOf(page).first().press('Enter')])
        await page.keyboard.press('Escape')
        await status.filter({ hasText: 'Stopped.' }).waitFor()
      } finally {
        kill(pid!, 'SIGCONT')
      }
      while (!server.log.some((line) => /explain.*"status":499/.test(line))) await page.waitForTimeout(20)

      const error = JSON.stringify({ error: { message: '64 requests wait already.' } })
      await page.route('**/v1/explain', (route) => route.fulfill({ status: 429, contentType: 'application/json', body: error }))
      await tokensOf(page).first().press('Enter')
      await panel.getByRole('alert').filter({ hasText: '64 requests wait already.' }).waitFor()
      const stream = (...events: readonly object[]) => ({
        contentType: 'text/event-stream',
        body: events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join('')
      })
      const begun = { object: 'explanation.progress', done: 1, total: 4 }
      const problem = { error: { message: 'The process of the model ended.' } }
      await page.route('**/v1/explain', (route) => route.fulfill(stream(begun, problem)))
      await tokensOf(page).first().press('Enter')
      await panel.getByRole('alert').filter({ hasText: 'The process of the model ended.' }).waitFor()
      assert.equal(await panel.getByRole('progressbar').count(), 0)
      await page.route('**/v1/explain', (route) => route.fulfill(stream(begun)))
      await tokensOf(page).first().press('Enter')
      await panel.getByRole('alert').filter({ hasText: 'The heat map broke off' }).waitFor()
      const other = { object: 'explanation', method: 'attention', data: [{ text: 'zebra', heat_map: part.heat_map }] }
      await page.route('**/v1/explain', (route) => route.fulfill(stream(other)))
      await tokensOf(page).first().press('Enter')
      await panel.getByRole('alert').filter({ hasText: 'the server reads the answer as other tokens' }).waitFor()
      await page.context().close()
    })

    it('a phone has no horizontal scrolling, and every control has a name, in light and dark', async () => {
      for (const colorScheme of ['light', 'dark'] as const) {
        const { page, errors } = await openPage(browser, server.url, { viewport: { width: 320, height: 640 }, colorScheme })
        await page.getByText('Settings').click()
        await setting(page, 'Longest answer', '6')
        await page.setInputFiles('input[type=file]', demo('shapes'))
        await askQuestion(page, 'Describe the image.')
        await answersOf(page)
        await page.getByLabel('Token probabilities').check()
        await page.getByLabel('Heat map by').selectOption('attention')
        await tokensOf(page).nth(1).press('Enter')
        await page.getByText(/^Heat map of .* by attention\.$/).waitFor()
        await tokensOf(page).last().hover()
        assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 320)
        const names = await page
          .locator('button, input:not([hidden]), select, textarea, [role=option]')
          .evaluateAll((controls) =>
            (controls as HTMLInputElement[]).map(
              (control) =>
                control.ariaLabel || control.textContent || control.labels?.[0]?.textContent || control.querySelector('img')?.alt
            )
          )
        assert.ok(names.length > 15 && names.every((name) => name && name.trim() !== ''), JSON.stringify(names))
        // WCAG 2.2, contrast (minimum)
        const contrasts = await page
          .locator('h1, .question .text, .answer footer, .legend, .facts li, .primary, .problem, .heat p')
          .evaluateAll((list) => {
            const light = (color: string): number => {
              const [r, g, b] = color
                .match(/[\d.]+/g)!
                .slice(0, 3)
                .map((n) => Number(n) / 255)
                .map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4))
              return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
            }
            const back = (element: Element): string => {
              const { backgroundColor } = getComputedStyle(element)
              return backgroundColor === 'rgba(0, 0, 0, 0)' && element.parentElement
                ? back(element.parentElement)
                : backgroundColor
            }
            return list.map((element) => {
              const [a, b] = [light(getComputedStyle(element).color), light(back(element))]
              return { name: element.className || element.tagName, contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) }
            })
          })
        assert.deepEqual(
          contrasts.filter(({ contrast }) => contrast < 4.5),
          []
        )
        assert.deepEqual(errors, [])
        await page.context().close()
      }
    })
  })
})

describe(`server: the page of a server with a key${chromiumPath ? '' : ' (skipped: Chromium is not installed)'}`, () => {
  it('asks for the key, refuses a wrong one, and keeps the right one in its tab', async function () {
    if (!chromiumPath) return this.skip()
    const [server, browser] = await Promise.all([startServer({ apiKeys: ['a long secret'.replaceAll(' ', '-')] }), launch()])
    try {
      const { page } = await openPage(browser, server.url)
      const enter = async (key: string): Promise<void> => {
        await page.getByLabel('This server needs an API key').fill(key)
        await page.keyboard.press('Enter')
      }
      await enter('wrong-key')
      await page.getByRole('alert').filter({ hasText: 'The API key is wrong.' }).waitFor()
      await enter('a-long-secret')
      await askQuestion(page, 'Who are you?')
      const [text] = await answersOf(page)
      assert.match(text!, /\w/)
      await page.reload()
      await page.getByText('float32').waitFor()
      assert.ok(!server.log.join('').includes('a-long-secret'))
    } finally {
      await Promise.all([browser.close(), server.close()])
    }
  })
})
