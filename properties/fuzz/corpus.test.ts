import assert from 'node:assert/strict'
import { readCorpus } from './corpus.js'
import { kindNamed } from './kinds/index.js'
import { isFinding } from './verdict.js'
import { watchedChild } from './watched-child.js'

describe('inputs that were findings', () => {
  const child = watchedChild()
  after(() => child.close())
  for (const [name, { kind, input, problem }] of readCorpus())
    it(`${name} is accepted or refused, and no longer a ${problem}`, async function () {
      this.timeout(180_000)
      kindNamed(kind)
      const verdict = await child.run({ kind, input })
      assert.ok(!isFinding(verdict), `${verdict.outcome}: ${verdict.detail}`)
    })
})
