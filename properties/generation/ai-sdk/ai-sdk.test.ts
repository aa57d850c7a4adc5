import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { answer } from '../../../generation/answer.js'
import { load } from '../../../generation/checkpoint/load.js'
import { installClients, modernNode } from '../server/modern-node.js'
import { imageUrl, question, toolTemplate } from '../server/test-server.js'

const node = modernNode()
const reason = node ? '' : ` (skipped: the AI SDK and its Node 22 are not installed; \`${installClients}\`)`

describe('ai-sdk', () => {
  it(`generateText, streamText, generateObject, tools and abort with an image${reason}`, async function () {
    this.timeout(180_000) // a second or two on a free machine
    if (!node) return this.skip()
    const image = await imageUrl('circle')
    const text = 'What color is the background?'
    const internvl = await load()
    const { texts } = await answer(internvl, [[question(text, image)] as never], { maxNewTokens: 24 })
    internvl.dispose()
    const input = { image, question: text, expected: texts[0], chatTemplate: toolTemplate }
    const script = fileURLToPath(new URL('../server/clients/local-model.mjs', import.meta.url))
    const env = { ...process.env, CLIENT_INPUT: JSON.stringify(input), AI_SDK_LOG_WARNINGS: 'false' }
    await promisify(execFile)(node, ['--import', 'tsx', script], { env, timeout: 170_000 })
  })
})
