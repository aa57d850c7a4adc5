import assert from 'node:assert/strict'
import { checkPage, runSections } from './check-section.js'

describe('check of a GPU', () => {
  it('a part that fails stops no other, and no part begins after the deadline', async () => {
    let time = 0
    const lines: string[] = []
    const part = (name: string, error?: string) => ({
      name,
      run: async () => {
        time += 1000
        if (error) throw new Error(error)
        return { summary: `done | ${name}`, details: { name } }
      }
    })
    const results = await runSections(
      [part('a'), part('b', 'no memory\nat x'), part('c'), part('d')],
      3000,
      (l) => lines.push(l),
      () => time
    )
    assert.deepEqual(
      results.map(({ name, state, seconds }) => [name, state, seconds]),
      [
        ['a', 'passed', 1],
        ['b', 'failed', 1],
        ['c', 'passed', 1],
        ['d', 'left out', 0]
      ]
    )
    assert.equal(lines.length, 4)
    const page = checkPage('GPU check', { gpu: 'none' }, results)
    assert.match(page, /- gpu: none\n/)
    assert.match(page, /\| a \| passed \| 1 \| done \\\| a \|/)
    assert.match(page, /\| b \| failed \| 1 \| no memory at x \|/)
  })
})
