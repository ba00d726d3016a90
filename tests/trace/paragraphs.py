"""Thoughts in R1's manner, written for these tests and cut and labelled by hand: `⟦kind⟧` stands where a step begins.

WRITTEN came in three rounds, each labelled before the rules had met it (at first sight they agreed in 80 of 84, 52 of 71 and 43 of
57 steps), and the rules were then mended by what it showed. HELD_OUT was written and labelled after that, and no rule was touched
since. One author wrote them all, and the rules too: other people's wordings will agree less.

How they were labelled. restate: what is asked or given, at the head of the thought. plan: what to do next, or how. check: a
result is tested. backtrack: something is taken back, doubted, or another way is taken. conclude: the result that the question
asked for is stated. work: all the rest. "Wait, let me check" is a check.
"""

from __future__ import annotations

import re


def labelled(marked: str) -> tuple[str, list[tuple[str, int]]]:
    """The text without its labels, and (kind, offset in characters) of each labelled step."""
    _, *parts = re.split(r"⟦(\w+)⟧", marked.removeprefix("\n"))
    text, steps = "", []
    for kind, piece in zip(parts[::2], parts[1::2], strict=True):
        steps.append((kind, len(text)))
        text += piece
    return text, steps


WRITTEN = {
    "tiles": r"""
⟦restate⟧Okay, so I need to find how many square tiles of side 15 cm cover a floor that is 3 m by 4.5 m. The tiles can't be cut, but I guess they don't have to be.

⟦plan⟧First, I should get everything into the same unit. Then I can count how many tiles go along each side and multiply.

⟦work⟧3 m is 300 cm, and 300 divided by 15 is 20. So there are 20 tiles along the short side. 4.5 m is 450 cm, which gives 30 tiles along the long side.

⟦work⟧So the total would be 20 times 30, which is 600.

⟦check⟧Let me verify that with areas. The floor has 13.5 square meters. One tile has 0.15 squared, that's 0.0225 square meters. 13.5 / 0.0225 = 600. Good, the same number.

⟦conclude⟧So the answer is 600 tiles.
""",
    "handshakes": r"""
⟦restate⟧Alright, the problem says that at a party everyone shook hands with everyone else exactly once, and there were 66 handshakes. The question is how many people were there.

⟦work⟧If there are n people, each of them shakes n - 1 hands, and that counts every handshake twice. So the number is n(n-1)/2.

⟦work⟧Setting n(n-1)/2 = 66 gives n² - n - 132 = 0. I could use the quadratic formula: n = (1 ± √529)/2. √529 is 23, so n = 12 or n = -11.⟦backtrack⟧ Wait, a negative number of people makes no sense, so only 12 is left.

⟦check⟧Double-checking: 12 * 11 = 132, and half of that is 66. Yes.

⟦conclude⟧**Final Answer**

There were \(\boxed{12}\) people at the party.
""",
    "sock drawer": r"""
⟦restate⟧Hmm, so there are 4 red socks and 6 blue socks in a drawer, and I take two without looking. What's the probability that they match?

⟦plan⟧Let me think about how to approach this. Either both are red or both are blue, so I can add the two probabilities.

⟦work⟧Both red: 4/10 × 3/9 = 12/90.

⟦work⟧Both blue: 6/10 × 5/9 = 30/90.

⟦backtrack⟧Hmm, wait. Should I have put the first sock back? The problem says "take two", so no, without replacement is right.

⟦work⟧Adding them: 12/90 + 30/90 = 42/90, which simplifies to

\[
\frac{42}{90} = \frac{7}{15}.
\]

⟦backtrack⟧Alternatively, I can count pairs: C(4,2) + C(6,2) = 6 + 15 = 21 pairs out of C(10,2) = 45. That's 21/45, also 7/15.

⟦conclude⟧Therefore, the probability that the socks match is 7/15.
""",
    "python function": r"""
⟦restate⟧The user wants a Python function that removes duplicates from a list but keeps the order of first appearance.

⟦plan⟧I need to decide between a loop with a set and `dict.fromkeys`. The second is shorter, but it needs hashable items, just like the set.

⟦work⟧Here is a first version:

```python
def unique(items):
    seen = set()

    # Wait: only hashable items
    for item in items:
        if item not in seen:
            seen.add(item)

            yield item
```

⟦backtrack⟧But wait, this is a generator, and they asked for a list. I could wrap it in `list(...)`, or just use the dict.

⟦work⟧`list(dict.fromkeys(items))` keeps insertion order since Python 3.7, so that's one line.

⟦check⟧Let me test it with [3, 1, 3, 2, 1]. The keys come in as 3, 1, 2, so the result is [3, 1, 2]. That works. An empty list gives an empty list.

⟦plan⟧I should also mention that the items have to be hashable, and what to do if they aren't.
""",
    "strawberries": r"""
⟦restate⟧Okay, the user is asking how many times the letter e appears in "nevertheless".

⟦plan⟧Let me go through the word letter by letter so that I don't miss any.

⟦work⟧n - no
e - yes, 1
v - no
e - yes, 2
r - no
t - no
h - no
e - yes, 3
l - no
e - yes, 4
s - no
s - no

⟦work⟧That makes 4.⟦backtrack⟧ Hmm, but I want to be careful about the middle of the word, it's easy to skip one there. "never" has two, "the" has one, "less" has one.⟦conclude⟧ So the total is 4.
""",
    "two trains": r"""
⟦restate⟧So I have this problem: a train leaves A at 9:00 going 80 km/h, another leaves B, 300 km away, at 10:00 going 70 km/h towards the first. When do they meet?

⟦work⟧At 10:00 the first train has gone 80 km. So the distance between them is 220 km at that time.

⟦work⟧From then on they approach each other at 150 km/h. 220 / 150 = 1.4666... hours. That's 1 hour and 28 minutes.

⟦work⟧So they'd meet at 11:28.

⟦backtrack⟧Hold on, did I read it right? Does the second one leave at 10:00 or one hour earlier? "Another leaves B at 10:00", okay. That's what I used.

⟦check⟧To double-check, by 11:28 the first has travelled 2 hours 28 minutes, which is 80 × 2.4667 = 197.33 km. The second: 70 × 1.4667 = 102.67 km. The sum is 300 km. Perfect.

⟦conclude⟧So they meet at 11:28, 197.33 km from A.
""",
    "knights and knaves": r"""
⟦restate⟧We have two islanders. A says: "We are both knaves." I need to figure out what each of them is. Knights always tell the truth and knaves always lie.

⟦plan⟧One way to do this is to try each case for A and see whether it leads to a contradiction.

⟦work⟧Case 1: A is a knight. Then the statement is true, so both are knaves, and A is a knave. That's a contradiction.

⟦work⟧Case 2: A is a knave. Then the statement is false, so they are not both knaves. Since A is one, B must be a knight.

⟦backtrack⟧Actually, let me reconsider the first case, because the statement is about both of them. If A is a knight, "we are both knaves" would have to be true, and it can't be. Okay, no change.

⟦conclude⟧In conclusion, A is a knave and B is a knight.
""",
    "weekend plan": r"""
⟦restate⟧The user has two days in Lisbon with a six-year-old and asks what to do. They don't want museums, and it will rain on Sunday.

⟦plan⟧I'll need to put the outdoor things on Saturday and keep something covered for Sunday.

⟦work⟧For Saturday:
- the tram up the hill in the morning, before the queues
- a park with a playground for lunch
- the ferry across the river in the afternoon

⟦work⟧For Sunday the aquarium comes to mind. It's big enough for half a day, and it is not really a museum.

⟦backtrack⟧Or maybe the aquarium counts as a museum for them? I don't think so, kids usually see it differently. I'll offer an indoor climbing place as a second choice.

⟦plan⟧I should keep the tone light and not make the list too long.
""",
    "system of equations": r"""
⟦restate⟧I need to solve the system 2x + y = 11 and x - 3y = -12.

⟦plan⟧Let's use substitution, since x is easy to isolate in the second equation.

⟦work⟧From the second one, x = 3y - 12. Substituting into the first:

$$2(3y - 12) + y = 11$$

⟦work⟧That's 6y - 24 + y = 11, so 7y = 35 and y = 5.

⟦work⟧Then x = 3·5 - 12 = 3.

⟦check⟧Plugging back in: 2·3 + 5 = 11, correct. And 3 - 15 = -12, correct too.

⟦conclude⟧Thus, the solution is x = 3 and y = 5.
""",
    "hello": r"""
⟦restate⟧The user just said "good evening". There's no question in it.

⟦plan⟧I should greet them back and offer my help. Nothing more is needed.
""",
    "one long paragraph": r"""
⟦restate⟧Okay, so I want to know what the last digit of 7 to the power of 2023 is.⟦work⟧ The last digits of powers of 7 go 7, 9, 3, 1 and then repeat, so the cycle has length 4. 2023 divided by 4 is 505 with remainder 3, so it's the third in the cycle, which is 3.⟦backtrack⟧ Wait, is remainder 3 the third one or the fourth one? Remainder 1 is the first, 7, so remainder 3 is the third.⟦backtrack⟧ No, hmm, let me think again about remainder 0: that would be the fourth, 1. Okay, that fits.⟦check⟧ Let me check with a small one: 7^3 = 343, and it ends in 3.⟦conclude⟧ So the answer is 3.
""",
    "鸡兔同笼": r"""
⟦restate⟧好的，题目说笼子里有鸡和兔一共35只，脚一共94只，问鸡和兔各有多少只。

⟦plan⟧首先，我可以设鸡有x只，兔有y只，然后列方程组。

⟦work⟧x + y = 35，2x + 4y = 94。把第一个方程乘以2，得到2x + 2y = 70，相减得2y = 24，所以y = 12，x = 23。

⟦backtrack⟧等一下，我是不是把脚的数目看错了？题目里是94只脚，没有错。

⟦check⟧验证一下：23只鸡有46只脚，12只兔有48只脚，加起来正好是94。

⟦conclude⟧所以答案是鸡23只，兔12只。
""",
    "称球": r"""
⟦restate⟧嗯，用户问的是：有9个外观相同的球，其中一个比较重，用天平最少称几次能找出来。

⟦plan⟧我需要想想怎么分组，每次称重应该尽量把可能性分成三份。

⟦work⟧第一次把球分成三组，每组3个，称其中两组。如果平衡，重球在第三组；如果不平衡，重球在较重的一组。第二次在3个球里再取两个来称，就能确定了。⟦backtrack⟧不对，如果题目没有说是重还是轻呢？再看一遍，题目明确说了是比较重，所以没问题。

⟦backtrack⟧或者也可以分成4、4、1三组，但那样最坏的情况下要称三次，不如前面的办法。

⟦conclude⟧因此，最少需要称2次。
""",
    "写信": r"""
⟦restate⟧用户想给以前的老师写一封感谢信，语气要真诚，不要太长。

⟦plan⟧我应该先写问候，再写一两件具体的小事，最后表示感谢和祝福。

⟦work⟧开头可以写“很久没有联系了，您最近身体好吗”。中间写老师当年放学后给我补课的事，这样显得真实。

⟦backtrack⟧不过，用户并没有提到补课，我不能编造。还是留出空白，让用户自己填写吧。

⟦check⟧我再检查一下长度，大约两百字，符合要求。
""",
    "rope around a garden": r"""
⟦restate⟧Okay, let's see. A rectangular garden has a perimeter of 54 meters and its length is twice its width, and we're supposed to find the area.

⟦work⟧Let w be the width. Then the length is 2w, and the perimeter is 2(w + 2w) = 6w.

⟦work⟧So 6w = 54, which means w = 9, and the length is 18.

⟦work⟧The area is 9 × 18 = 162.

⟦check⟧Does that fit the perimeter? 9 + 18 + 9 + 18 = 54. Yes, it does.

⟦conclude⟧So, the area of the garden is 162 square meters.
""",
    "coin flips": r"""
⟦restate⟧I'm asked for the expected number of coin flips until two heads come up in a row.

⟦plan⟧I think a state diagram is the way to go: state 0 with no head yet, state 1 with one head.

⟦work⟧Let E0 and E1 be the expected remaining flips. From state 1, with probability 1/2 we're done, otherwise we're back in state 0. So E1 = 1 + E0/2.

⟦work⟧Similarly, E0 = 1 + E1/2 + E0/2.

⟦work⟧Substituting gives E0 = 2 + E1 = 3 + E0/2, and so E0 = 6.

⟦backtrack⟧Hmm, that seems small. Somehow I remembered 8, but that might be for another pattern.

⟦check⟧I can verify this by adding the first few terms: the chance of being done at flip 2 is 1/4, at flip 3 it's 1/8, at flip 4 again 1/8. The weights go with the Fibonacci numbers, and the mean comes to 6.

⟦conclude⟧Hence the expected number is 6.
""",
    "sorting bug": r"""
⟦restate⟧The person asking has a bubble sort that leaves the last element in the wrong place. Here's their code:

```js
for (let i = 0; i < a.length - 2; i++) {
  for (let j = 0; j < a.length - 2; j++) {

    // So the answer is: swap
    if (a[j] > a[j + 1]) swap(a, j, j + 1);
  }
}
```

⟦work⟧Looking at the inner loop, j runs up to a.length - 3, so the pair of the last two elements is never compared. The bound should be a.length - 1.

⟦check⟧Let's test it: with [2, 3, 1] the inner loop has only j = 0, 2 and 3 are in order, and the 1 is never touched. That explains the report.

⟦backtrack⟧But is the outer loop fine? It runs a.length - 2 times.⟦backtrack⟧ Hmm, for three elements that's once, and two passes are needed in the worst case. So the outer bound is wrong as well.

⟦plan⟧In the answer I should show both changes and explain them in a sentence each.
""",
    "number of zeros": r"""
⟦restate⟧Okay, so how many zeros are there at the end of 100 factorial?

⟦work⟧Each zero comes from a factor of 10, so a pair of 2 and 5. There are more 2s than 5s, so it's the 5s that count.

⟦work⟧100/5 = 20 multiples of 5.

⟦backtrack⟧Oh wait, multiples of 25 have two fives. I almost forgot those. There are 4 of them, and each contributes one more.

⟦work⟧That brings it to 20 + 4 = 24. And 125 is beyond 100, so nothing else.

⟦check⟧To be sure, for 10! the same method gives 2, and 10! = 3628800 ends in two zeros. Good.

⟦conclude⟧**Answer:** 24
""",
    "haiku": r"""
⟦restate⟧They'd like a haiku about a broken umbrella, in a melancholic but slightly funny tone.

⟦plan⟧A haiku has five, seven and five syllables. I'll look for an image first, maybe the umbrella in a bin after the storm.

⟦work⟧"Ribs bent to the sky" - that's five. "it kept off most of the rain" - it-kept-off-most-of-the-rain, seven. "for one whole minute" - five.

⟦check⟧Counting again: for-one-whole-min-ute. Five, okay.

⟦backtrack⟧Maybe "sky" and "rain" are too plain? No, plain is good here, the joke is in the last line.
""",
    "bookshelf": r"""
⟦restate⟧There are five books, A to E, on a shelf. A is left of B, C is at one end, D is next to A, and E is exactly in the middle. What orders are possible?

⟦plan⟧Let me set up positions 1 to 5 and begin with what is fixed.

⟦work⟧E is at 3. C is at 1 or 5.

⟦work⟧**C at 1.** A and D have to be neighbours, and E is at 3, so they are at 4 and 5. Then B is at 2, but A has to be left of B. So this doesn't work.

⟦work⟧**C at 5.** A and D are at 1 and 2, B is at 4. A is left of B either way.

⟦backtrack⟧Hmm, but "next to" might mean directly next to, or might it not? I'd say it always means directly.

⟦conclude⟧So there are two possible orders: A D E B C and D A E B C.
""",
    "derivative": r"""
⟦restate⟧I have to differentiate f(x) = x² · e^(3x).

⟦plan⟧This calls for the product rule. I'd start with the two factors separately.

⟦work⟧- u = x², u' = 2x
- v = e^(3x), v' = 3e^(3x)

⟦work⟧So f'(x) = 2x·e^(3x) + x²·3e^(3x). Factoring out gives x·e^(3x)·(2 + 3x).

⟦backtrack⟧Wait a second, is the derivative of e^(3x) with the factor 3? Yes, by the chain rule.

⟦conclude⟧The final result is therefore

\[ f'(x) = x e^{3x} (3x + 2). \]
""",
    "email": r"""
⟦restate⟧The user needs a short email to their landlord about a dripping tap. They wrote about it two weeks ago and got no reply.

⟦plan⟧The tone should be polite but firm. I'll mention the first message with its date left open, and ask for an appointment this week.

⟦backtrack⟧Alternatively, should I bring up a rent reduction? That may be too much for a second message. I'll leave it out and offer it as an option afterwards.

⟦check⟧Let me make sure the draft has everything: what is broken, since when, the earlier message, what they ask for. Yes.
""",
    "leap years": r"""
⟦restate⟧How many leap years are there from 1896 to 2004, both included?⟦plan⟧ Let me count the multiples of 4 and then take out the centuries.⟦work⟧ 2004 - 1896 = 108, and 108/4 = 27, so there are 28 multiples of 4. 1900 is a century not divisible by 400, so it's out. 2000 stays.⟦work⟧ So that leaves 27.⟦backtrack⟧ Actually, hold on. Is 1896 divisible by 4? 1896/4 = 474, yes.⟦conclude⟧ Therefore the answer is 27.
""",
    "年龄问题": r"""
⟦restate⟧题目：父亲今年的年龄是儿子的4倍，6年后是儿子的2.5倍，求两人今年的年龄。

⟦plan⟧设儿子今年x岁，父亲今年就是4x岁，我先根据6年后的关系列方程。

⟦work⟧4x + 6 = 2.5(x + 6)，也就是4x + 6 = 2.5x + 15，1.5x = 9，x = 6。

⟦work⟧那么父亲今年24岁。

⟦check⟧让我检查一下：6年后儿子12岁，父亲30岁，30除以12正好是2.5。没问题。

⟦conclude⟧综上，儿子今年6岁，父亲今年24岁。
""",
    "古诗": r"""
⟦restate⟧用户想知道一首写月亮的古诗，最好适合小学生背诵。

⟦plan⟧我可以推荐一首短一点的五言诗，再用简单的话解释意思。

⟦backtrack⟧等等，用户只说要一首，我不需要列很多。那就选最熟悉的一首吧。

⟦backtrack⟧不过也要考虑到小学生可能已经学过了，换一首不那么常见的也许更好。

⟦conclude⟧总之，先给一首，再问用户要不要别的。
""",
    "排列": r"""
⟦restate⟧现在要用1、2、3、4四个数字组成没有重复数字的四位偶数，问有多少个。

⟦work⟧个位只能是2或4，有2种选法。剩下的三个数字排在前三位，有3! = 6种。一共是2 × 6 = 12个。

⟦backtrack⟧我是不是漏掉了什么？题目要求没有重复数字，而且没有0，所以首位没有限制。没有漏。

⟦check⟧再验证一下，全部的四位数有24个，奇数和偶数各占一半，正好12个。

⟦conclude⟧因此答案是12个。
""",
    "paint": r"""
⟦restate⟧Okay, so three painters need 8 hours for a wall, and the question is how long five painters would need for the same wall. I assume they all work at the same speed.

⟦plan⟧I'll work with painter-hours, that's the easiest way.

⟦work⟧Three painters for 8 hours is 24 painter-hours. Divided among five that's 24/5 = 4.8 hours.

⟦work⟧0.8 hours is 48 minutes.

⟦check⟧Let me just double-check: 5 × 4.8 = 24. Right.

⟦backtrack⟧Although... could there be a catch, like not enough room for five people at the wall? I don't think the problem intends that.

⟦conclude⟧So five painters would take 4.8 hours, or 4 hours and 48 minutes.
""",
    "prime": r"""
⟦restate⟧I need to check whether 221 is prime.

⟦work⟧The square root of 221 is a bit less than 15, so I only need to try 2, 3, 5, 7, 11 and 13.

⟦work⟧It's odd, the digits add up to 5, and it doesn't end in 0 or 5. 7 × 31 = 217, remainder 4. 11 × 20 = 220, remainder 1. So it looks prime.⟦backtrack⟧ Wait, I haven't tried 13. 13 × 17 = 221!

⟦conclude⟧So 221 is not prime: it is 13 × 17.
""",
    "recipe": r"""
⟦restate⟧The user has eggs, spinach, stale bread and a bit of cheese, and wants something for dinner in under half an hour.

⟦plan⟧I should suggest one dish and not five. Let me think about what uses all of it.

⟦work⟧A savory bread pudding would use everything, but it needs 40 minutes in the oven.

⟦backtrack⟧That's too long. A frittata with croutons is faster: the bread goes into the pan first, then the spinach, then the eggs with the cheese.

⟦check⟧Is that doable in 30 minutes? Five for the bread, three for the spinach, ten for the eggs. Yes, easily.

⟦plan⟧I'll write it as four short steps, with the amounts left open.
""",
    "regex": r"""
⟦restate⟧So the user wants a regex that matches dates like 2024-03-09, but not 2024-13-09.

⟦plan⟧First, let me split it into year, month and day.

⟦work⟧Year: `\d{4}`. Month: `0[1-9]|1[0-2]`. Day: `0[1-9]|[12]\d|3[01]`.

⟦work⟧Put together:

```
^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$

Hmm, wait: months with 30 days
```

⟦backtrack⟧But this would accept 2024-02-31. The user didn't ask for that, though. I'd mention it as a limitation.

⟦check⟧Let's check the two examples. 2024-03-09 matches: 03 is fine and 09 too. 2024-13-09 doesn't, because 13 is neither 0x nor 10 to 12.
""",
    "monty": r"""
⟦restate⟧This is the three-doors puzzle with a twist: the host opens a door at random, and it happens to show a goat. Should I switch?

⟦backtrack⟧My first instinct is to say 2/3 for switching, but no, that's the classic version, where the host knows.

⟦plan⟧Let me enumerate the cases. Say I pick door 1, and the host opens door 2 or 3 with equal probability.

⟦work⟧- Car behind 1: the host shows a goat for sure. Probability 1/3.
- Car behind 2: he shows a goat only if he opens 3. Probability 1/6.
- Car behind 3: likewise 1/6.

⟦work⟧Given that a goat was shown, the car is behind door 1 with probability (1/3) / (2/3) = 1/2.

⟦backtrack⟧Hmm, is that plausible? It feels odd that the host's knowledge changes things.⟦work⟧ Since he could have shown the car and did not, my door becomes more likely.

⟦conclude⟧Thus it makes no difference whether I switch.
""",
    "syllogism": r"""
⟦restate⟧All glims are torbs. Some torbs are vens. The question: are some glims necessarily vens?

⟦work⟧The torbs that are vens may be exactly those that aren't glims. Take glims = {1}, torbs = {1, 2}, vens = {2}.

⟦check⟧Checking the premises: 1 is a torb, so all glims are torbs. 2 is a torb and a ven. Both hold, and no glim is a ven.

⟦conclude⟧Therefore, no, it doesn't follow.
""",
    "thanks": r"""
⟦restate⟧The user says thank you and that the code runs now.

⟦work⟧No further question here.

⟦plan⟧I'll answer briefly, and maybe remind them to remove the debug print.
""",
    "compound interest": r"""
⟦restate⟧Alright. 2,000 euros at 3% a year, compounded yearly. After how many years are there more than 2,500 euros?

⟦plan⟧I need to find the smallest n with 1.03^n > 1.25.

⟦work⟧ln 1.25 = 0.2231 and ln 1.03 = 0.02956. The quotient is 7.55.

⟦work⟧So n = 8.

⟦check⟧Let me verify with the powers: 1.03^7 = 1.2299 and 1.03^8 = 1.2668. The first is below 1.25, the second above. Great.

⟦backtrack⟧Alternatively, the rule of 72 gives a doubling in 24 years, and a quarter of the way in about 7.7 years. It's consistent.

⟦conclude⟧The answer is 8 years.
""",
    "相遇": r"""
⟦restate⟧题目是说甲乙两地相距360千米，两车同时相向而行，一辆每小时50千米，另一辆每小时70千米，几小时后相遇。

⟦plan⟧这是典型的相遇问题，我先求速度之和。

⟦work⟧50 + 70 = 120，360 ÷ 120 = 3。

⟦backtrack⟧等等，题目有没有说其中一辆中途停了？没有，两车一直在开。

⟦check⟧检查一下：3小时分别走了150千米和210千米，合起来360千米，对的。

⟦conclude⟧所以答案是3小时。
""",
    "翻译": r"""
⟦restate⟧用户要把一句中文广告语翻译成英文，要求简短有力。

⟦plan⟧首先理解原句的意思，然后再考虑怎么押韵。

⟦work⟧原句强调“轻”和“快”，可以译成“Light as air, fast as you”。

⟦backtrack⟧不对，“fast as you”的意思不太清楚。换成“Light as air. Gone in a flash.”会更好一些。

⟦conclude⟧最终的译文就用这一句，再附上一个备选。
""",
}

HELD_OUT = {
    "fence posts": r"""
⟦restate⟧Okay, so the problem is about a straight fence of 60 meters with a post every 4 meters, including both ends. How many posts are needed?

⟦work⟧60 divided by 4 is 15. So my first thought is 15 posts.

⟦backtrack⟧Wait, that's the number of gaps, not of posts. With both ends included there is one more post than gaps.

⟦work⟧That gives 15 + 1 = 16.

⟦check⟧Let me test this with a tiny fence. For 4 meters there is one gap and there are two posts. The formula says 4/4 + 1 = 2. Yes, that works.

⟦conclude⟧So the answer should be 16 posts.
""",
    "mixture": r"""
⟦restate⟧I have 200 ml of a 30% solution and want to dilute it to 12%. How much water has to be added?

⟦plan⟧Let me recall how dilution works: the amount of substance stays the same, only the volume changes.

⟦work⟧The substance is 0.3 × 200 = 60 ml.

⟦work⟧At 12%, the volume V satisfies 0.12 V = 60, so V = 500 ml.

⟦work⟧The water is 500 - 200 = 300 ml.

⟦check⟧To verify, 60/500 = 0.12. Good.

⟦conclude⟧Therefore, 300 ml of water have to be added.
""",
    "binary search": r"""
⟦restate⟧The user is asking why their binary search never ends when the target is larger than all the elements.

⟦plan⟧Let me look at the code first.

⟦work⟧```c
while (lo < hi) {
    int mid = (lo + hi) / 2;

    if (a[mid] < x) lo = mid;   // Hmm, mid + 1?
    else hi = mid;
}
```

⟦work⟧When lo = 4 and hi = 5, mid is 4, and lo is set to 4 again. That's the endless loop.

⟦backtrack⟧Hmm, but is it also wrong for targets inside the array? For those hi comes down to lo at some point, unless the target lies in the last place. So it can happen there too.

⟦work⟧The fix is lo = mid + 1.

⟦check⟧I should double-check that no element gets skipped: a[mid] < x means that mid itself can't be the answer, so moving past it is safe.

⟦plan⟧I'll explain the cause in two sentences and give the corrected line.
""",
    "seating": r"""
⟦restate⟧Alright, so Ann, Ben, Cleo and Dan sit around a round table. Ann doesn't sit next to Ben. We need to determine who sits opposite Cleo.

⟦plan⟧First, let's fix Ann at one seat, since rotations don't matter.

⟦work⟧Of the three other seats two are next to Ann. Ben can't be in those, so Ben is opposite Ann.

⟦work⟧Then Cleo and Dan take the remaining two seats, which are opposite each other.

⟦backtrack⟧But wait, does it matter which of them is on the left? No, in both cases they face each other.

⟦conclude⟧So Dan sits opposite Cleo.
""",
    "sum of digits": r"""
⟦restate⟧What is the smallest number whose digits add up to 30?⟦plan⟧ To find it, I want as few digits as possible.⟦work⟧ Three digits give at most 27, so four are needed. The last three should be 9, and the first is 30 - 27 = 3. That's 3999.⟦backtrack⟧ Hmm, could a different arrangement be smaller? With a first digit of 2 the rest would have to add up to 28, and that's impossible.⟦conclude⟧ The answer is 3999.
""",
    "gift": r"""
⟦restate⟧The user is looking for a birthday present for a colleague they hardly know, for about 15 euros.

⟦plan⟧I should think of neutral things: nothing too personal, nothing for the body, nothing that takes up space.

⟦work⟧Some ideas:
- good chocolate or tea
- a small plant
- a voucher for the bakery next to the office

⟦backtrack⟧Actually, a plant might be a burden for some people. I'll mention it with that remark.

⟦backtrack⟧Alternatively, a card signed by the whole team would cost nothing and be just as nice.

⟦plan⟧I'd end with a question about what the colleague likes.
""",
    "angle": r"""
⟦restate⟧We're given a triangle with angles in the ratio 2 : 3 : 4, and the largest angle is wanted.

⟦work⟧The parts add up to 9, and 180°/9 = 20°.

⟦work⟧So the angles are 40°, 60° and 80°.

⟦check⟧Let me check the sum: 40 + 60 + 80 = 180. That's correct.

⟦conclude⟧Thus, the largest angle is

$$\boxed{80^\circ}$$
""",
    "probability slip": r"""
⟦restate⟧So, two dice are rolled. The question is the probability that the sum is at least 10.

⟦plan⟧I could list all the cases, there are only a few.

⟦work⟧10: (4,6), (5,5), (6,4). 11: (5,6), (6,5). 12: (6,6).

⟦work⟧That's 6 cases out of 36.⟦backtrack⟧ Wait, did I count (4,6) and (6,4) both? Yes, I did.

⟦backtrack⟧Another way to see it is by symmetry: sums of at most 4 are just as likely, and there are 1 + 2 + 3 = 6 of them.

⟦conclude⟧Hence the probability is 1/6.
""",
    "who are you": r"""
⟦restate⟧The user wants to know which model I am and whether I can browse the web.

⟦plan⟧I should answer truthfully and keep it short.

⟦work⟧I can't browse, I only know what I was trained on.
""",
    "分苹果": r"""
⟦restate⟧题目说，一筐苹果分给若干个小朋友，每人5个则多3个，每人6个则少4个，问有多少个小朋友。

⟦plan⟧我们可以设小朋友有n个，苹果的总数用两种方式表示。

⟦work⟧5n + 3 = 6n - 4，移项得n = 7。苹果一共有38个。

⟦check⟧我来验算一下：7 × 6 = 42，42 - 4 = 38，没错。

⟦backtrack⟧等等，题目问的是小朋友的人数还是苹果的个数？问的是人数。

⟦conclude⟧所以，答案是7个小朋友。
""",
    "作文": r"""
⟦restate⟧用户希望我帮忙修改一段关于秋天的作文，让它更生动。

⟦plan⟧首先，我要看看原文有哪些地方比较平淡。

⟦work⟧“树叶黄了，风很大”可以改成“风一吹，金黄的叶子就跳起舞来”。

⟦backtrack⟧或者保留原来的句子，只加一个比喻，这样更像学生自己写的。

⟦conclude⟧总的来说，改动不宜太多。
""",
}
