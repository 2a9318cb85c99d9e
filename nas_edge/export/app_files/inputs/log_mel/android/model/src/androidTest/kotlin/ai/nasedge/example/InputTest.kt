package ai.nasedge.example

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Runs on a phone: `gradle :model:connectedAndroidTest`. */
@RunWith(AndroidJUnit4::class)
class InputTest {
    @Test
    fun takesSamples() {
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val samples = ShortArray(16000) { (it % 100).toShort() }
        EdgeModel(context).use { model -> assertTrue(model.run(samples).all { it == it }) }
    }
}
